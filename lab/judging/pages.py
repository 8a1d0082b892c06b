def pages(grades, skipped, test):
    return []
