# Solutions of 6_is_the_difference_real.ipynb: the cell of each exercise, as it can be completed.

# %% 6.1
def t_statistic(first, second):
    d = np.subtract(first, second)
    return d.mean() / (d.std(ddof=1) / np.sqrt(len(d)))


# %% 6.2
paired_p = stats.ttest_rel(B, A).pvalue
unpaired_p = stats.ttest_ind(B, A).pvalue


# %% 6.3
def conclusion(low, high, margin):
    if low > margin:
        return "better"
    if high < -margin:
        return "worse"
    return "equivalent" if -margin < low and high < margin else "open"


# %% 6.4
noise = np.sqrt(2) * by_training.loc["ce"].std(ddof=1)


# %% 6.5
def risk(mean_a, sd_a, mean_b, sd_b, n, r):
    sd = np.sqrt(sd_a**2 + sd_b**2 - 2 * r * sd_a * sd_b)
    return stats.t.cdf(np.sqrt(n) * (mean_a - mean_b) / sd, n - 1)


# %% 6.6
impossible = 3
