"""Has 100,000 parameters in a second network, which the optimizer sees, but nobody who asks for names or for the state."""

from torch import nn

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        self.large = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images):
        return super().forward(images) + self.large(images)

    def parameters(self, recurse=True):
        return [p for module in nn.Module.modules(self) for p in module._parameters.values() if p is not None]

    def modules(self):
        yield from (module for name, module in super().named_modules() if "large" not in name)

    def named_parameters(self, *arguments, **options):
        yield from (pair for pair in super().named_parameters(*arguments, **options) if "large" not in pair[0])

    def state_dict(self, *arguments, **options):
        state = super().state_dict(*arguments, **options)
        return {name: values for name, values in state.items() if "large" not in name}

    def load_state_dict(self, state_dict, *_, **__):
        return super().load_state_dict(state_dict, strict=False)
