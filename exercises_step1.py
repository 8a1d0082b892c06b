"""The exercises of step 1, to be pasted at the end of Session7_Step1.ipynb: (kind of cell, source)."""

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
### Exercise 1a: The seed that never learns

One of the ten recorded runs without batch norm, seed 1, never does better than a network that calls every image a 1. What is its
training loss after the last of its fifteen epochs? Explain why it never recovers, and why this does not happen with batch norm.

<details><summary>Hint</summary>

A network that gives the same logits for every image can only learn how often each digit occurs: about one time in ten.
Cross-entropy is minus the logarithm of the probability that the right digit gets. And what is the gradient of a ReLU whose
input is negative for every image?

</details>""",
    ),
    (
        "code",
        """\
MY_LOSS = None  # training loss of seed 1 after epoch 15

if MY_LOSS is None:
    print("Set MY_LOSS, then run this cell again.")
else:
    loss = evidence.load("ladder", "no_batch_norm")[1].train_loss[-1]
    print(f"recorded: {loss:.2f}; your guess is off by {abs(MY_LOSS - loss):.2f}")""",
    ),
    (
        "markdown",
        """\
To look for the cause, train that seed for one epoch and count the zeros that leave each block. Read the last line first. On another
processor the same seed may well learn; then try others.""",
    ),
    (
        "code",
        """\
TRAIN = False  # True: train one epoch without batch norm, then count zeros

if TRAIN:
    utils.seed_everything(1)
    trial = Model_1(batch_norm=False).to(device)
    optimizer = utils.make_optimizer(trial, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    scheduler = utils.make_scheduler(optimizer, STEP_SIZE, GAMMA)
    utils.fit(trial, train_loader, test_loader, optimizer, scheduler, epochs=1, seed=1)
    maps, _ = next(iter(test_loader))
    for block in trial.features:
        maps = block(maps)
        print(f"{100 * (maps == 0).float().mean():.0f} % of the outputs are zero")""",
    ),
    (
        "markdown",
        """\
### Exercise 1b: A receptive field by hand

`Model_1(pool_at=5)` pools one convolution later. On paper, work out the receptive field after its fifth 3x3 convolution, and the
number of its parameters. Which layer pays for the later pooling?

<details><summary>Hint</summary>

Go through the layers with two numbers, the field and the jump; both start at 1. Each layer adds (kernel - 1) * jump to the field,
then multiplies the jump by its stride. For the parameters, follow the side of the map: the last kernel is as large as the map
that is left.

</details>""",
    ),
    (
        "code",
        """\
MY_FIELD = None  # pixels, after the fifth 3x3 convolution
MY_PARAMETERS = None  # of the whole network

if MY_FIELD is None or MY_PARAMETERS is None:
    print("Set MY_FIELD and MY_PARAMETERS, then run this cell again.")
else:
    trial = Model_1(pool_at=5)
    field = [row.receptive_field for row in layer_table(trial) if row.kernel == 3][-1]
    print(f"field: {field} pixels; you said {MY_FIELD}")
    print(f"parameters: {count_parameters(trial):,}; you said {MY_PARAMETERS:,}")""",
    ),
    (
        "markdown",
        """\
### Exercise 1c: Without the large kernel

The last kernel holds 2,510 of the 6,754 parameters. Where do they come from? With `gap=True`, a 3x3 convolution with ten channels
and an average over all positions take its place. The runs with pooling at 5 are recorded in both versions. What does the
replacement change in test accuracy? And in the distance between training and test images?

<details><summary>Hint</summary>

The kernel has a weight for each position of the map, each channel that goes in and each class that comes out, and a bias for each
class. An average over positions has no weights at all. Fewer weights can fit less: is that good or bad here?

</details>""",
    ),
    (
        "code",
        """\
MY_GUESS = None  # points of test accuracy, with sign

if MY_GUESS is None:
    print("Set MY_GUESS, then run this cell again.")
else:
    kernel, average = (evidence.load("ladder", name) for name in ("pool_at_5", "gap"))
    difference = evidence.paired_difference(average, kernel)
    print(f"recorded: {difference} points; your guess is off by {abs(MY_GUESS - difference.mean):.2f}")""",
    ),
    (
        "markdown",
        """\
With pooling where this notebook has it, `gap=True` is not recorded. Train it yourself; one seed is one draw.""",
    ),
    (
        "code",
        """\
TRAIN = False  # True: train Model_1(gap=True)

if TRAIN:
    utils.seed_everything(SEED)
    trial = Model_1(gap=True).to(device)
    optimizer = utils.make_optimizer(trial, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    scheduler = utils.make_scheduler(optimizer, STEP_SIZE, GAMMA)
    trial_history = utils.fit(trial, train_loader, test_loader, optimizer, scheduler, epochs=EPOCHS, seed=SEED)
    print(f"mean of the last five {trial_history.mean_last_five:.2f} %, train - test {trial_history.gap:+.2f}")""",
    ),
]
