"""The public SDK on your own cluster. Set CWSANDBOX_BASE_URL to the gateway and CWSANDBOX_API_KEY to a ServiceAccount's token."""

from cwsandbox import Sandbox

with Sandbox.run(container_image="python:3.11", max_lifetime_seconds=300) as sandbox:
    sandbox.write_file("primes.py", b"print([n for n in range(2, 50) if all(n % d for d in range(2, n))])").result()
    result = sandbox.exec(["python", "primes.py"], check=True).result()
    print(f"{sandbox.sandbox_id} says {result.stdout}", end="")
print(f"{sandbox.sandbox_id} is {sandbox.status}")
