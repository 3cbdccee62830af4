"""Checks of data sets and the removal of test texts from pre-finetuning data."""
