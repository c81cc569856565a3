"""A place to begin: replace `greet` by a function of your own and deploy it as a model."""


def greet(args: dict) -> dict:
    """`{"name": "Ada"}` → `{"greeting": "Hello, Ada!"}`."""
    return {"greeting": f"Hello, {args.get('name', 'world')}!"}
