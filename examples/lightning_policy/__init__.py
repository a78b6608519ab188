"""The policy of examples/train_policy, trained by Lightning; see README.md."""
