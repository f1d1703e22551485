"""The same under the name that Weights & Biases gives it, with its kind of key."""

import warnings

from conftest import kubectl

# Its hash is in the Secret that the tests' installation names.
KEY = "0123456789abcdef0123456789abcdef01234567"


def test_wandb_sandbox(tag, monkeypatch):
    monkeypatch.delenv("CWSANDBOX_API_KEY")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ENTITY_NAME", "team")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wandb.sandbox import Sandbox
    with Sandbox.run(tags=[tag]) as sandbox:
        assert sandbox.exec(["echo", "hi"]).result().stdout == "hi\n"
        lifetime = kubectl("get", "sbx", sandbox.sandbox_id, "-o", "jsonpath={.spec.maxLifetimeSeconds}")
        assert lifetime == str(12 * 3600)
    monkeypatch.undo()
