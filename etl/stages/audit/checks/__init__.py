"""The checks of an audit: functions that yield findings."""
