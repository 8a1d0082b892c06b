"""The exercises of step 3, to be pasted at the end of Session7_Step3.ipynb: (kind of cell, source)."""

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
### Exercise 3a: A rate that never falls

Step 3 at a constant rate of 0.05 is recorded for ten seeds. Take the last five epochs of one run: how many points lie between the
best and the worst, on average over the seeds? Step 3 itself stays within a tenth of a point.

<details><summary>Hint</summary>

At a constant rate the weights keep jumping around a good place, and each epoch ends somewhere else. Step 1 has the same constant
rate: read its last five epochs in its table of seeds, and start from there.

</details>""",
    ),
    (
        "code",
        """\
MY_GUESS = None  # points between the best and the worst of the last five epochs

if MY_GUESS is None:
    print("Set MY_GUESS, then run this cell again.")
else:
    constant = evidence.load("ablation", "constant_rate").values()
    ranges = [max(run.last_five) - min(run.last_five) for run in constant]
    mean = sum(ranges) / len(ranges)
    print(f"recorded: {mean:.2f} points; your guess is off by {abs(MY_GUESS - mean):.2f}")""",
    ),
    (
        "markdown",
        """\
Step 3 begins at a rate of 0.2. Kept constant, that rate is not recorded: train it and read its last five epochs.""",
    ),
    (
        "code",
        """\
TRAIN = False  # True: train at a constant rate of 0.2

if TRAIN:
    utils.seed_everything(SEED)
    trial = Model_2(dropout=0.0).to(device)
    optimizer = utils.make_optimizer(trial, 0.2, MOMENTUM, WEIGHT_DECAY)
    scheduler = utils.make_scheduler(optimizer, STEP_SIZE, 1.0)
    trial_history = utils.fit(
        trial, train_loader, test_loader, optimizer, scheduler, epochs=EPOCHS, plain_epochs=PLAIN_EPOCHS, seed=SEED
    )
    print(" ".join(f"{percent:.2f}" for percent in trial_history.last_five))""",
    ),
    (
        "markdown",
        """\
### Exercise 3b: Two that do the same work

Augmentation and weight decay both work against memorising. Leave one of them out, and Step 3 loses so little that ten seeds cannot
show it. Perhaps each covers for the other. What does Step 3 lose without both: nothing, the sum of the two, or more?

<details><summary>Hint</summary>

If one can stand in for the other, leaving out either costs little, and leaving out both costs much more than the sum. If each does a
small job of its own, the losses add up. The ladder has a row with the falling rate, and neither weight decay nor augmentation.

</details>""",
    ),
    (
        "code",
        """\
MY_GUESS = None  # points of test accuracy, with sign, for leaving out both

if MY_GUESS is None:
    print("Set MY_GUESS, then run this cell again.")
else:
    neither = evidence.load("ladder", "schedule")
    difference = evidence.paired_difference(neither, evidence.load("ablation", "step3"))
    print(f"recorded: {difference} points; your guess is off by {abs(MY_GUESS - difference.mean):.2f}")""",
    ),
    (
        "markdown",
        """\
### Exercise 3c: How few epochs, how few parameters?

Shorter runs of Step 3 are recorded for ten seeds, and smaller networks for five. What is the fewest epochs after which every seed
*ends* at 99.4 % or more? What is the smallest network that is consistently at 99.4 % for every seed, in 15 epochs? Then say how sure
you are: what do five seeds out of five prove?

<details><summary>Hint</summary>

Do not read the epochs off the run above: in a shorter run the rate falls sooner, so after eight epochs a run of eight is ahead of a
run of fifteen. For the last question, suppose that a network meets the target for only half of all seeds: how often would you
see five out of five?

</details>""",
    ),
    (
        "code",
        """\
MY_EPOCHS = None  # the fewest epochs
MY_PARAMETERS = None  # the smallest network

if MY_EPOCHS is None or MY_PARAMETERS is None:
    print("Set MY_EPOCHS and MY_PARAMETERS, then run this cell again.")
else:
    for name, recorded in evidence.load_study("epochs").items():
        ends = [run.test_correct[-1] for run in recorded.values()]
        print(f"{name:<16} {sum(end >= 9940 for end in ends)} of {len(ends)} seeds end at 99.4 % or more")
    for name, recorded in evidence.load_study("frontier").items():
        met = evidence.over_seeds(recorded)
        print(f"{name:<16} {met.consistent} of {met.seeds} seeds are consistently at 99.4 %")""",
    ),
    (
        "markdown",
        """\
Train with your number of epochs. The three rates share the epochs evenly here, and the last third has plain images.""",
    ),
    (
        "code",
        """\
TRAIN = False  # True: train MY_EPOCHS epochs

if TRAIN:
    third = max(1, MY_EPOCHS // 3)
    utils.seed_everything(SEED)
    trial = Model_2(dropout=0.0).to(device)
    optimizer = utils.make_optimizer(trial, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    scheduler = utils.make_scheduler(optimizer, third, GAMMA)
    trial_history = utils.fit(
        trial, train_loader, test_loader, optimizer, scheduler, epochs=MY_EPOCHS, plain_epochs=third, seed=SEED
    )
    print(f"after the last epoch {trial_history.test_accuracy[-1]:.2f} %")""",
    ),
]
