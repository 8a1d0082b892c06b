"""The exercises of step 2, to be pasted at the end of Session7_Step2.ipynb: (kind of cell, source)."""

CELLS = [
    (
        "markdown",
        """\
## Exercises

Write your prediction down before you run anything: you learn most from a guess that was wrong for a reason. Hints are folded
away. The answers are in [lab/Answers.ipynb](lab/Answers.ipynb), with the recorded runs behind them.""",
    ),
    (
        "markdown",
        """\
### Exercise 2a: Which of the seven changes are real?

The ladder from `Model_1` to `Model_2` has seven changes. If none of them did anything, one 95 % interval in twenty would still
exclude zero, on average. To be wrong about *any* of the seven no more often than that, make each interval wider: its confidence is
then 1 - 0.05 / 7 (Bonferroni). How many of the seven still exclude zero? Which change raises the accuracy, and which one
closes the gap between training and test images?

<details><summary>Hint</summary>

With ten seeds, the wider interval is about one and a half times as wide. Which of the seven have that much to spare? For the gap,
read the column *train - test* from row to row.

</details>""",
    ),
    (
        "code",
        """\
MY_GUESS = None  # how many of the seven changes

if MY_GUESS is None:
    print("Set MY_GUESS, then run this cell again.")
else:
    from itertools import pairwise

    from scipy.stats import t

    names = ["step1", "pool_at_5", "gap", "fully_connected", "capacity", "width", "separable", "dropout"]
    wider = t.ppf(1 - 0.025 / 7, df=9) / t.ppf(1 - 0.025, df=9)
    for above, name in pairwise(names):
        mean, _, high = evidence.paired_difference(evidence.load("ladder", name), evidence.load("ladder", above))
        reach = wider * (high - mean)
        print(f"{name:<16} {mean:+.2f} ({mean - reach:+.2f} to {mean + reach:+.2f})")""",
    ),
    (
        "markdown",
        """\
### Exercise 2b: Half the dropout

The held-out runs compare dropout 0.05 with 0.1 over two seeds. Which one is more accurate? "Cannot tell" is an answer too. Now
suppose that the two really differ by 0.05 points: over how many seeds must you run both before the 95 % interval is narrow
enough to show it?

<details><summary>Hint</summary>

The interval reaches t * s / sqrt(n) to either side: s is the standard deviation of the paired differences, n the number of seeds,
and t about 2 unless n is small. Two seeds say next to nothing about s. Ten seeds with and without dropout, from the
ladder, say more.

</details>""",
    ),
    (
        "code",
        """\
MY_SEEDS = None  # how many seeds

if MY_SEEDS is None:
    print("Set MY_SEEDS, then run this cell again.")
else:
    from scipy.stats import t

    with_dropout, without = (evidence.load("ladder", name) for name in ("dropout", "no_dropout"))
    mean, _, high = evidence.paired_difference(with_dropout, without)
    spread = (high - mean) * 10**0.5 / t.ppf(0.975, df=9)  # over ten seeds
    needed = next(n for n in range(2, 1000) if t.ppf(0.975, df=n - 1) * spread / n**0.5 <= 0.05)
    print(f"the differences spread by {spread:.2f} points: {needed} seeds; you said {MY_SEEDS}")""",
    ),
    (
        "markdown",
        """\
Train with half the dropout, on all training images, and compare with this notebook's own run.""",
    ),
    (
        "code",
        """\
TRAIN = False  # True: train Model_2(dropout=0.05)

if TRAIN:
    utils.seed_everything(SEED)
    trial = Model_2(dropout=0.05).to(device)
    optimizer = utils.make_optimizer(trial, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    scheduler = utils.make_scheduler(optimizer, STEP_SIZE, GAMMA)
    trial_history = utils.fit(trial, train_loader, test_loader, optimizer, scheduler, epochs=EPOCHS, seed=SEED)
    print(f"mean of the last five {trial_history.mean_last_five:.2f} %, train - test {trial_history.gap:+.2f}")""",
    ),
    (
        "markdown",
        """\
### Exercise 2c: A network of your own

Design a network of fewer than 8,000 parameters with separable convolutions: choose the widths below. Count its parameters on paper
first. Then predict: how small can such a network be and still reach 99.4 % with step 3's training?

<details><summary>Hint</summary>

From m to n channels, a separable convolution has 9 m + m n weights: the 3x3 filters, then the 1x1 convolution. Batch norm adds
2 n. The first two convolutions are whole. The linear layer at the end has 10 weights for each channel, and 10 biases.

</details>""",
    ),
    (
        "code",
        """\
MY_CHANNELS = (8, 16, 20, 20, 20)  # Model_2 has (8, 16, 34, 36, 38)
MY_CAPACITY = 20  # Model_2 has 40
MY_PARAMETERS = None  # counted on paper

trial = Model_2(MY_CHANNELS, capacity=MY_CAPACITY, dropout=0.0)
if MY_PARAMETERS is None:
    print("Set MY_PARAMETERS, then run this cell again.")
else:
    parameters = count_parameters(trial)
    print(f"{parameters:,} parameters, fewer than 8,000: {parameters < 8000}; you said {MY_PARAMETERS:,}")""",
    ),
    (
        "markdown",
        """\
Train it as this notebook trains. Step 3's training will do more for it.""",
    ),
    (
        "code",
        """\
TRAIN = False  # True: train your network

if TRAIN:
    utils.seed_everything(SEED)
    trial = Model_2(MY_CHANNELS, capacity=MY_CAPACITY, dropout=0.0).to(device)
    optimizer = utils.make_optimizer(trial, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    scheduler = utils.make_scheduler(optimizer, STEP_SIZE, GAMMA)
    trial_history = utils.fit(trial, train_loader, test_loader, optimizer, scheduler, epochs=EPOCHS, seed=SEED)
    print(f"mean of the last five {trial_history.mean_last_five:.2f} %, train - test {trial_history.gap:+.2f}")""",
    ),
]
