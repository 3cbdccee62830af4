"""The research beside trunkline: public data, strategies, suites, peers, statistics and speed."""
