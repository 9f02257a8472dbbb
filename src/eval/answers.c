/* answers.c - see answers.h. */
#include "eval/answers.h"

#include <stdlib.h>
#include <string.h>

#include "eval/lower.h"
#include "eval/vqa_words.inc"

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }

static bool digit(char c) { return c >= '0' && c <= '9'; }

bool nm_vqa_trim(nm_buf *b, const char *text)
{
    size_t n = strlen(text);
    while (n && blank(*text))
        text++, n--;
    while (n && blank(text[n - 1]))
        n--;
    nm_buf_puts(b, "");
    for (size_t i = 0; i < n; i++)
        nm_buf_putc(b, text[i] == '\n' || text[i] == '\t' ? ' ' : text[i]);
    return !b->failed;
}

/* Is a mark deleted (else it becomes a blank)? Where the text as given has it beside a blank, or any comma between digits. */
static bool deletes(const char *text, char mark, bool comma)
{
    for (const char *p = text; !comma && *p; p++)
        if ((p[0] == mark && p[1] == ' ') || (p[0] == ' ' && p[1] == mark))
            return true;
    return comma;
}

static bool punctuation(nm_buf *b, const char *text)
{
    static const char marks[] = ";/[]\"{}()=+\\_-><@`,?!";
    bool remove[128] = { false }, comma = false;
    int stops = 0;
    for (const char *p = text; *p; p++)
        comma = comma || (p > text && *p == ',' && digit(p[-1]) && digit(p[1]));
    for (const char *m = marks; *m; m++)
        remove[(unsigned char)*m] = deletes(text, *m, comma);
    nm_buf_puts(b, "");
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p >= 128 || !strchr(marks, *p))
            nm_buf_putc(b, *p);
        else if (!remove[(unsigned char)*p])
            nm_buf_putc(b, ' ');
    }
    size_t kept = 0; /* a stop that no digit follows goes, the first 32 of them */
    for (size_t i = 0; !b->failed && i < b->len; i++)
        if (b->data[i] != '.' || digit(b->data[i + 1]) || stops++ >= 32)
            b->data[kept++] = b->data[i];
    if (!b->failed) {
        b->len = kept;
        b->data[kept] = 0;
    }
    return !b->failed;
}

static const char *mapped(const char *word)
{
    static const struct { const char *word, *digit; } numbers[] = {
        { "none", "0" }, { "zero", "0" }, { "one", "1" }, { "two", "2" }, { "three", "3" }, { "four", "4" }, { "five", "5" }, { "six", "6" },
        { "seven", "7" }, { "eight", "8" }, { "nine", "9" }, { "ten", "10" },
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(word, numbers[i].word) == 0)
            word = numbers[i].digit;
    if (strcmp(word, "a") == 0 || strcmp(word, "an") == 0 || strcmp(word, "the") == 0)
        return NULL;
    for (size_t i = 0; i < sizeof contractions / sizeof *contractions; i++)
        if (strcmp(word, contractions[i].plain) == 0)
            return contractions[i].full;
    return word;
}

static bool lower(nm_buf *b, const char *text)
{
    size_t n = strlen(text);
    nm_buf_puts(b, "");
    for (size_t i = 0; i < n;)
        i += nm_put_lower(b, text + i, n - i);
    return !b->failed;
}

bool nm_vqa_normalise(nm_buf *b, const char *text)
{
    nm_buf plain = { 0 }, low = { 0 };
    bool ok = punctuation(&plain, text) && lower(&low, plain.data) && nm_buf_puts(b, ""), first = true;
    for (char *p = low.data; ok && *p;) {
        size_t n = 0;
        while (p[n] && !blank(p[n]))
            n++;
        bool last = !p[n];
        p[n] = 0;
        const char *word = n ? mapped(p) : NULL;
        if (word) {
            ok = (first || nm_buf_putc(b, ' ')) && nm_buf_puts(b, word);
            first = false;
        }
        if (last)
            break;
        p += n + 1;
    }
    nm_buf_free(&plain);
    nm_buf_free(&low);
    return ok;
}

noema_status nm_vqa_accuracy(double *accuracy, const char *prediction, size_t n, const char *const *answers, noema_error *err)
{
    char **text = calloc(n + 1, sizeof *text); /* text[n]: the prediction */
    bool ok = text && n > 0, same = true;
    size_t equal = 0;
    for (size_t i = 0; ok && i <= n; i++) {
        nm_buf b = { 0 };
        ok = nm_vqa_trim(&b, i < n ? answers[i] : prediction) && (text[i] = nm_buf_take(&b));
        same = same && (i == 0 || i == n || !ok || strcmp(text[i], text[0]) == 0);
    }
    for (size_t i = 0; ok && !same && i <= n; i++) {
        nm_buf b = { 0 };
        ok = nm_vqa_normalise(&b, text[i]);
        char *more = ok ? nm_buf_take(&b) : NULL;
        if ((ok = more != NULL)) {
            free(text[i]);
            text[i] = more;
        }
        nm_buf_free(&b);
    }
    for (size_t i = 0; ok && i < n; i++)
        equal += strcmp(text[i], text[n]) == 0;
    double with = equal > 0 ? (double)(equal - 1) / 3 : 0, without = (double)equal / 3; /* seen from an equal answer, from another one */
    *accuracy = n ? ((double)equal * (with < 1 ? with : 1) + (double)(n - equal) * (without < 1 ? without : 1)) / (double)n : 0;
    for (size_t i = 0; text && i <= n; i++)
        free(text[i]);
    free(text);
    return ok ? NOEMA_OK : nm_fail(err, n ? NOEMA_E_MEMORY : NOEMA_E_FORMAT, n ? "out of memory: answers" : "a question without answers");
}

bool nm_blip_text(nm_buf *b, const char *text, bool question, int words)
{
    nm_buf low = { 0 };
    bool ok = lower(&low, text) && nm_buf_puts(b, "");
    int seen = 0;
    for (char *p = low.data; ok && *p; p++) {
        bool mark = strchr(".!\"()*#:;~", *p) != NULL;
        if (mark && question)
            continue;
        bool gap = mark || blank(*p);
        if (!gap)
            ok = nm_buf_putc(b, *p);
        else if (b->len && b->data[b->len - 1] != ' ') {
            if (++seen == words)
                break;
            ok = nm_buf_putc(b, ' ');
        }
    }
    while (ok && b->len && b->data[b->len - 1] == ' ')
        b->data[--b->len] = 0;
    nm_buf_free(&low);
    return ok;
}
