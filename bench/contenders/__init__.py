"""Who is timed: one file a family, all of them listed in contender_list.py."""
