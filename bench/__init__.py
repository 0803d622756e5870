"""What is measured, a folder a question; run from the repository's root, as `python -m bench.X.Y`.

- `quality`: how good the models are on held-out data.
- `training`: how fast they train, compared with others.
- `scale`: what large logs and large catalogues cost.
- `serving`: what an answer costs.
- `survival`: what kills, new versions and hostile requests do to a server.
- `cuda`: what only a card can show, and what TF32 would change.
- `imports`: whether imported networks answer as the library that trained them.
- `harness`: what these share, and the tests with them.
"""
