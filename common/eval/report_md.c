/* report.md of eval/report.h: tables first for what was promised, then what was measured, then how.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "eval/report.h"

static void number(struct buf *out, double v, int digits)
{
    if (isfinite(v))
        buf_printf(out, "%.*f", digits, v);
    else
        buf_str(out, "-");
}

static void signed_interval(struct buf *out, const struct interval *v, int digits)
{
    if (!isfinite(v->value)) {
        buf_str(out, "-");
        return;
    }
    buf_printf(out, "%+.*f", digits, v->value);
    if (isfinite(v->lo))
        buf_printf(out, " [%.*f, %.*f]", digits, v->lo, digits, v->hi);
}

/* Text of a model or a person inside a table or list: one line, nothing that Markdown would read.
 */
static void plain(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n' || *text == '\r' || *text == '\t')
            buf_char(out, ' ');
        else if (strchr("|*_`<>[]\\#", *text) != NULL)
            buf_printf(out, "\\%c", *text);
        else if ((unsigned char)*text >= 32)
            buf_char(out, *text);
    }
}

static void table_head(struct buf *out, const char *const *column, int n)
{
    for (int i = 0; i < n; i++)
        buf_printf(out, "| %s ", column[i]);
    buf_str(out, "|\n");
    for (int i = 0; i < n; i++)
        buf_str(out, "| --- ");
    buf_str(out, "|\n");
}

static void figures_section(const struct results *r, struct buf *out)
{
    static const char *const head[] = {"", "figure", "value", "bound"};
    int failed = 0;

    for (int i = 0; i < r->figures_n; i++)
        failed += !r->figure[i].ok;
    buf_printf(out, "**%d of %d figures hold.**\n\n", r->figures_n - failed, r->figures_n);
    table_head(out, head, 4);
    for (int i = 0; i < r->figures_n; i++) {
        const struct results_figure *f = &r->figure[i];
        struct interval v = {f->value, f->lo, f->hi};
        buf_printf(out, "| %s | %s | ", f->ok ? "PASS" : "**FAIL**", f->name);
        signed_interval(out, &v, 3);
        buf_printf(out, " | %s |\n", f->bound);
    }
}

/* Worth a row in the main table: the attribute's own measures, and rulers that move by a fifth of a
 * standard deviation. */
static bool worth_showing(const struct results *r, int g, int attr, int m)
{
    const struct interval *v = &results_effect(r, 0, g, attr)->measure[m];

    if (r->lead[attr] == m || r->measure[m].attr == attr)
        return true;
    return !r->measure[m].judged && r->measure[m].attr < 0 && isfinite(v->lo) &&
           !interval_has(v, 0.0) && fabs(v->value) >= 0.2 * r->spread[m];
}

static int digits_of(const struct results *r, int m)
{
    return r->measure[m].rate ? 2 : r->spread[m] < 0.5 ? 3 : 1;
}

static void level_means(const struct results *r, int model, int g, int attr, int m, struct buf *out)
{
    int digits = digits_of(r, m);

    for (int l = 0; l < r->levels; l++) {
        if (l > 0)
            buf_str(out, " / ");
        number(out, results_cell(r, model, g, attr, l)->mean[m].value, digits);
    }
    buf_str(out, " | ");
    signed_interval(out, &results_effect(r, model, g, attr)->measure[m], digits);
}

static void effects_section(const struct results *r, int g, struct buf *out)
{
    char guide[24], levels[96] = "levels";
    const char *head[] = {"attribute: measure",        "model",    levels,
                          "effect (highest - lowest)", "Spearman", "human replies, same levels"};

    results_guidance_text(r->guidance[g], guide);
    for (int l = 0; l < r->levels; l++) {
        size_t at = strlen(levels);
        snprintf(levels + at, sizeof levels - at, "%s%d", l > 0 ? " / " : " ", r->level[l]);
    }
    buf_printf(out, "\n## Effects, guidance %s\n\n", guide + 1);
    table_head(out, head, r->has_human ? 6 : 5);
    for (int a = 0; a < r->attrs; a++) {
        for (int m = 0; m < r->measures; m++) {
            if (!worth_showing(r, g, a, m))
                continue;
            for (int model = 0; model < r->models; model++) {
                bool lead = r->lead[a] == m && model == 0;
                buf_printf(out, lead ? "| **%s: %s** | %s | " : "| %s: %s | %s | ", r->attr[a],
                           r->measure[m].name, r->model[model]);
                level_means(r, model, g, a, m, out);
                buf_str(out, " | ");
                number(out, results_effect(r, model, g, a)->rho[m], 2);
                buf_str(out, r->has_human && model > 0 ? " | " : "");
                for (int l = 0; r->has_human && model == 0 && l < r->levels; l++) {
                    buf_str(out, l == 0 ? " | " : " / ");
                    number(out, r->human[a].mean[l][m], digits_of(r, m));
                }
                buf_str(out, " |\n");
            }
        }
    }
    buf_str(out, "\nBold: the ruler that a figure is held against. Every measure of every setting "
                 "is in `report.json`.\n");
}

static void leakage_section(const struct results *r, int g, struct buf *out)
{
    char guide[24];

    results_guidance_text(r->guidance[g], guide);
    buf_printf(out,
               "\n## What else changes, `%s`, guidance %s\n\nEffect of each attribute (row) on "
               "each measure (column).\n\n|  |",
               r->model[0], guide + 1);
    for (int m = 0; m < r->measures; m++)
        buf_printf(out, " %s |", r->measure[m].name);
    buf_str(out, "\n| --- |");
    for (int m = 0; m < r->measures; m++)
        buf_str(out, " --- |");
    for (int a = 0; a < r->attrs; a++) {
        buf_printf(out, "\n| %s |", r->attr[a]);
        for (int m = 0; m < r->measures; m++) {
            const struct interval *v = &results_effect(r, 0, g, a)->measure[m];
            buf_str(out, r->lead[a] == m || r->measure[m].attr == a ? " **" : " ");
            if (isfinite(v->value))
                buf_printf(out, "%+.2f%s", v->value,
                           isfinite(v->lo) && !interval_has(v, 0.0) ? "" : " (0)");
            else
                buf_str(out, "-");
            buf_str(out, r->lead[a] == m || r->measure[m].attr == a ? "** |" : " |");
        }
    }
    buf_str(out, "\n\n(0): the interval contains 0.\n");
}

static void seeds_section(const struct results *r, struct buf *out)
{
    static const char *const head[] = {"models", "attribute: measure", "guidance", "effect of each",
                                       "mean",   "smallest",           "largest"};
    bool begun = false;

    for (int first = 0; first < r->models; first++) {
        int group[RESULTS_MODELS_MAX], n = 0;
        bool seen = false;
        for (int m = 0; m < first; m++)
            seen = seen || results_same_group(r->model[m], r->model[first]);
        for (int m = first; m < r->models && !seen; m++)
            if (results_same_group(r->model[m], r->model[first]))
                group[n++] = m;
        if (n < 2)
            continue;
        if (!begun) {
            buf_str(out, "\n## Over training seeds\n\n");
            table_head(out, head, 7);
            begun = true;
        }
        for (int g = 0; g < r->guidances; g++) {
            for (int a = 0; a < r->attrs; a++) {
                double lo = (double)INFINITY, hi = -lo, sum = 0.0;
                if (r->lead[a] < 0)
                    continue;
                buf_printf(out, "| %s (%d) | %s: %s | %.4g | ", r->model[first], n, r->attr[a],
                           r->measure[r->lead[a]].name, r->guidance[g]);
                for (int i = 0; i < n; i++) {
                    double v = results_effect(r, group[i], g, a)->measure[r->lead[a]].value;
                    buf_printf(out, "%s%+.2f", i > 0 ? ", " : "", v);
                    lo = fmin(lo, v);
                    hi = fmax(hi, v);
                    sum += v / n;
                }
                buf_printf(out, " | %+.2f | %+.2f | %+.2f |\n", sum, lo, hi);
            }
        }
    }
}

static void gap_section(const struct results *r, struct buf *out)
{
    static const char *const head[] = {"model",   "responses",       "true",          "shuffled",
                                       "missing", "shuffled - true", "missing - true"};
    bool any = false, all_computed = true;

    for (int m = 0; m < r->models; m++)
        any = any || r->gap[m].rows > 0;
    if (!any)
        return;
    for (int a = 0; a < r->attrs; a++)
        all_computed = all_computed && r->computed[a];
    buf_printf(out,
               "\n## Held-out loss, nats a token of human replies\n\nWith each reply's own "
               "attributes, with those of another reply%s, and with none.\n\n",
               all_computed ? "" : " (what is computed from the text stays)");
    table_head(out, head, 7);
    for (int m = 0; m < r->models; m++) {
        const struct results_gap *gap = &r->gap[m];
        if (gap->rows == 0)
            continue;
        buf_printf(out, "| %s | %zu | %.4f | %.4f | %.4f | ", r->model[m], gap->rows, gap->nll_true,
                   gap->nll_shuffled, gap->nll_missing);
        signed_interval(out, &gap->shuffled, 4);
        buf_str(out, " | ");
        signed_interval(out, &gap->missing, 4);
        buf_str(out, " |\n");
    }
    for (int m = 0; m < r->models; m++) {
        int seeds;
        struct interval over = results_gap_over_seeds(r, m, &seeds);
        if (seeds == 0)
            continue;
        buf_printf(out, "\nOver the %d training seeds of `%s`: shuffled - true ", seeds,
                   r->model[m]);
        signed_interval(out, &over, 4);
        buf_str(out, " (t interval; those above hold for one trained model each).\n");
    }
}

static void text_row(const char *model, const char *setting, const struct results_cell *cell,
                     struct buf *out)
{
    if (cell->replies == 0)
        return;
    buf_printf(out, "| %s | %s | %zu | ", model, setting, cell->replies);
    number(out, cell->tokens, 1);
    buf_str(out, " | ");
    number(out, cell->unique_words, 1);
    buf_str(out, " | ");
    number(out, cell->distinct2, 3);
    buf_str(out, " | ");
    number(out, cell->nll, 3);
    buf_str(out, " | ");
    number(out, cell->base_nll, 3);
    buf_str(out, " |\n");
}

/* Each setting of few models; of many only the means. */
static void text_settings(const struct results *r, int m, int g, bool few, struct buf *out)
{
    char setting[160];

    for (int a = 0; few && a < r->attrs; a++) {
        for (int l = 0; l < r->levels; l++) {
            snprintf(setting, sizeof setting, "%s %d, guidance %.4g", r->attr[a], r->level[l],
                     r->guidance[g]);
            text_row(r->model[m], setting, results_cell(r, m, g, a, l), out);
        }
    }
    buf_printf(out, "| %s | mean of all, guidance %.4g | | | | ", r->model[m], r->guidance[g]);
    number(out, results_mean_distinct2(r, m, g), 3);
    buf_str(out, " | ");
    number(out, results_mean_nll(r, m, g), 3);
    buf_str(out, " | |\n");
}

static void text_section(const struct results *r, struct buf *out)
{
    static const char *const head[] = {"model",
                                       "asked for",
                                       "replies",
                                       "tokens",
                                       "different words",
                                       "distinct-2",
                                       "NLL without attributes",
                                       "NLL under the base model"};

    buf_str(out, "\n## Length, diversity, fluency\n\n");
    table_head(out, head, 8);
    for (int m = 0; m < r->models; m++) {
        text_row(r->model[m], "nothing", results_cell(r, m, 0, -1, 0), out);
        for (int g = 0; g < r->guidances; g++)
            text_settings(r, m, g, r->models * r->guidances <= 4, out);
    }
    if (isfinite(r->human_distinct2))
        buf_printf(out, "\nHuman replies, as many as a row has: distinct-2 %.3f.\n",
                   r->human_distinct2);
    buf_str(out, "NLL: nats a token of the generated reply, under the model that wrote it with all "
                 "attributes missing, and under the base model where one is given.\n");
}

static void scores_row(struct buf *out, const char *name, const struct results_scores *s,
                       double knob)
{
    buf_printf(out, "| %s | ", name);
    number(out, s->accuracy, 3);
    buf_str(out, " | ");
    number(out, s->kappa, 3);
    buf_str(out, " | ");
    number(out, s->macro_f1, 3);
    buf_str(out, " | ");
    number(out, s->auc, 3);
    buf_str(out, " | ");
    number(out, knob, 2);
    buf_str(out, " |\n");
}

static void judged_section(const struct results *r, struct buf *out)
{
    static const char *const head[] = {"", "accuracy", "kappa", "macro F1", "AUC", "knob"};

    if (r->judged_n == 0)
        return;
    buf_str(out, "\n## Attribute model against human labels\n");
    for (int i = 0; i < r->judged_n; i++) {
        const struct results_judged *j = &r->judged[i];
        buf_printf(out, "\n### %s (%d classes), %zu held-out responses\n\n", j->label, j->classes,
                   j->tested_on);
        table_head(out, head, 6);
        buf_printf(out, "| majority class | %.3f | 0 | - | 0.500 | - |\n", j->majority);
        scores_row(out, "attribute model", &j->model, j->model_knob);
        if (j->has_baseline)
            scores_row(out, "TF-IDF, logistic regression", &j->baseline, j->baseline_knob);
        scores_row(out, "attribute model, untuned", &j->model_raw, (double)NAN);
        if (j->has_baseline)
            scores_row(out, "TF-IDF, untuned", &j->baseline_raw, (double)NAN);
        buf_str(out, "\nKappa of the attribute model ");
        signed_interval(out, &j->model_kappa, 3);
        if (j->has_baseline) {
            buf_str(out, "; minus TF-IDF ");
            signed_interval(out, &j->difference, 3);
        }
        buf_printf(out, ". Knobs (%s) tuned for kappa on %zu responses of the training part.\n",
                   j->classes == 2 ? "cut on the probability"
                                   : "power of the class prior divided out",
                   j->tuned_on);
    }
}

static void samples_section(const struct results *r, struct buf *out)
{
    size_t last = SIZE_MAX;

    if (r->samples_n == 0)
        return;
    buf_str(out,
            "\n## Replies side by side\n\nThe first contexts of the draw, not chosen by hand.\n");
    for (int i = 0; i < r->samples_n; i++) {
        const struct results_sample *s = &r->sample[i];
        if (s->context != last) {
            buf_str(out, "\n> ");
            plain(out, s->prompt[0] != '\0' ? s->prompt : "(nothing)");
            buf_str(out, "\n\n");
            last = s->context;
        }
        if (s->attr < 0)
            buf_printf(out, "* `%s`, nothing asked for: ", r->model[s->model]);
        else
            buf_printf(out, "* `%s`, %s %d, guidance %.4g: ", r->model[s->model], r->attr[s->attr],
                       r->level[s->level], r->guidance[s->guidance]);
        plain(out, s->text);
        buf_char(out, '\n');
    }
}

static void method_section(const struct results *r, struct buf *out)
{
    buf_printf(out,
               "\n## How\n\n"
               "* %zu contexts, drawn by a keyed permutation (seed %llu), the same for every "
               "setting. One reply a context and setting, temperature %.4g, "
               "at most %d tokens.\n"
               "* One attribute is tested at a time; the others are %s.\n"
               "* Intervals: 95 %%, percentile bootstrap, %u resamples over contexts (effects) or "
               "conversations (loss, kappa). They do not cover training seeds.\n"
               "* The ruler of an attribute is the one that separates human replies of its highest "
               "and lowest level most, in standard deviations; "
               "a computed attribute is its own ruler.\n"
               "* Rulers and attribute model read the same text and share cues; where they "
               "disagree, believe the rulers.\n",
               r->contexts, (unsigned long long)r->seed, r->temperature, r->max_new_tokens,
               strcmp(r->others, "middle") == 0 ? "at their middle level"
               : strcmp(r->others, "all_missing") == 0
                   ? "missing"
                   : "missing, but computed ones are at their middle level",
               STATS_RESAMPLES);
}

void report_markdown(const struct results *r, struct buf *out)
{
    char name[64];
    struct buf picture = BUF_INIT;

    buf_printf(out, "# %s\n\n", r->name);
    figures_section(r, out);
    buf_char(out, '\n');
    for (int i = 0; report_picture(r, i, name, &picture); i++) {
        buf_printf(out, "![%s](%s)\n", name, name);
        buf_clear(&picture);
    }
    buf_free(&picture);
    for (int g = 0; g < r->guidances; g++)
        effects_section(r, g, out);
    seeds_section(r, out);
    for (int g = 0; g < r->guidances; g++)
        leakage_section(r, g, out);
    gap_section(r, out);
    text_section(r, out);
    judged_section(r, out);
    samples_section(r, out);
    method_section(r, out);
}
