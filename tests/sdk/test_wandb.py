"""The same under the name that Weights & Biases gives it."""

import warnings

from cwsandbox import Sandbox as Plain


def test_wandb_sandbox(tag):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wandb.sandbox import Sandbox
    with Sandbox.run(tags=[tag]) as sandbox:
        assert sandbox.exec(["echo", "hi"]).result().stdout == "hi\n"
        assert Plain is not None
