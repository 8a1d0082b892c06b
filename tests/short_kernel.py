"""A short training in notebooks: code that a kernel runs when it starts. The lesson's own code has no trace of it."""

from pathlib import Path

STARTUP = '''
import functools
import sys


def shorten(*_):
    """Before each cell: once the notebook has imported utils, its `fit` trains two epochs on few images."""
    utils = sys.modules.get("utils")
    if utils is None or hasattr(utils.fit, "__wrapped__"):
        return
    full = utils.fit

    def few(loader, count):
        return utils.Loader(loader.digits[:count], loader.batch_size, loader.transform, loader.shuffle)

    @functools.wraps(full)
    def fit(model, train_loader, test_loader, *rest, epochs, plain_epochs=0, **options):
        loaders = few(train_loader, 2_000), few(test_loader, 1_000)
        return full(model, *loaders, *rest, epochs=min(epochs, 2), plain_epochs=min(plain_epochs, 1), **options)

    utils.fit = fit


get_ipython().events.register("pre_run_cell", shorten)
'''


def write_startup(folder: Path) -> None:
    """Have kernels train little whose IPYTHONDIR is this folder."""
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "short.py").write_text(STARTUP)
