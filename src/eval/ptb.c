/* ptb.c - Penn Treebank tokens as CoreNLP's PTBTokenizer makes them for captions, less what pycocoevalcap drops.
 *
 * Text is cut at blanks; marks at the edges of a piece and most marks inside become tokens of their own; clitics are split off ("does n't",
 * "dog 's"). Dropped: '' ' `` ` . ? ! , : - -- ... ; and upper-case bracket names; since lower-casing comes after escaping, brackets stay as
 * -lrb- and so on. */
#include <ctype.h>
#include <string.h>

#include "eval/captions.h"
#include "eval/lower.h"

/* Words that keep their full stop. */
static const char *const abbreviations[] = {
    "mr.", "mrs.", "ms.", "dr.", "st.", "etc.", "jr.", "sr.", "vs.", "inc.", "co.", "corp.", "ltd.", "mt.", "ave.", "blvd.", "prof.", "gen.", "rep.",
    "sen.", "gov.", "capt.", "lt.", "col.", "sgt.", "rev.", "hon.", "jan.", "feb.", "apr.", "aug.", "sep.", "sept.", "oct.", "nov.", "dec.",
};
static const struct { const char *whole, *parts; } splits[] = {
    { "cannot", "can not" }, { "gonna", "gon na" }, { "gotta", "got ta" }, { "wanna", "wan na" }, { "lemme", "lem me" }, { "gimme", "gim me" },
    { "'tis", "'t is" }, { "'twas", "'t was" }, { "d'ye", "d' ye" }, { "more'n", "more 'n" },
};
static const char *const clitics[] = { "'s", "'m", "'d", "'re", "'ve", "'ll" };
static const char *const dropped[] = { "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";" };

static bool equals(const char *s, size_t n, const char *word) { return strlen(word) == n && memcmp(s, word, n) == 0; }

static bool ends(const char *s, size_t n, const char *tail) { return n > strlen(tail) && memcmp(s + n - strlen(tail), tail, strlen(tail)) == 0; }

static bool put(nm_buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
        if (n == 0 || equals(s, n, dropped[i]))
            return true;
    return (b->len == 0 || nm_buf_putc(b, ' ')) && nm_buf_append(b, s, n);
}

/* Lower case; typographic quotes, dashes and the ellipsis as CoreNLP writes them in ASCII; line ends and hard blanks as blanks. */
static bool plain(nm_buf *b, const char *text)
{
    size_t n = strlen(text);
    nm_buf_puts(b, "");
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = nm_utf8_decode(text + i, n - i, &cp);
        if (cp == 0x2018 || cp == 0x2019)
            nm_buf_putc(b, '\'');
        else if (cp == 0x201C || cp == 0x201D || cp == 0xAB || cp == 0xBB)
            nm_buf_putc(b, '"');
        else if (cp == 0x2013 || cp == 0x2014)
            nm_buf_puts(b, " -- ");
        else if (cp == 0x2026)
            nm_buf_puts(b, " ... ");
        else if (cp == 0xA0 || cp == 0x3000 || (cp >= 0x2000 && cp <= 0x200A) || (cp < 128 && isspace((int)cp)))
            nm_buf_putc(b, ' ');
        else
            nm_put_lower(b, text + i, n - i);
        i += (size_t)len;
    }
    return !b->failed;
}

/* "u.s.", "a.m": single letters with stops between. */
static bool is_acronym(const char *s, size_t n)
{
    bool stop = false;
    for (size_t i = 0; i < n; i++) {
        if (i % 2 ? s[i] != '.' : !isalpha((unsigned char)s[i]))
            return false;
        stop = stop || s[i] == '.';
    }
    return stop && n > 2;
}

static bool keeps_stop(const char *s, size_t n)
{
    for (size_t i = 0; i < sizeof abbreviations / sizeof *abbreviations; i++)
        if (equals(s, n, abbreviations[i]))
            return true;
    return is_acronym(s, n);
}

static bool is_address(const char *s, size_t n)
{
    static const char *const tails[] = { ".com", ".org", ".net", ".edu", ".gov" };
    for (size_t i = 0; i + 3 <= n; i++)
        if (memcmp(s + i, "://", 3) == 0)
            return true;
    for (size_t i = 0; i < 5; i++)
        if (ends(s, n, tails[i]))
            return true;
    return n > 4 && memcmp(s, "www.", 4) == 0;
}

/* A piece without marks at its edges: clitics and joined words. */
static bool put_word(nm_buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++)
        if (equals(s, n, splits[i].whole))
            return put(b, splits[i].parts, strlen(splits[i].parts));
    if (ends(s, n, "n't"))
        return put(b, s, n - 3) && put(b, "n't", 3);
    for (size_t i = 0; i < sizeof clitics / sizeof *clitics; i++)
        if (ends(s, n, clitics[i]))
            return put_word(b, s, n - strlen(clitics[i])) && put(b, clitics[i], strlen(clitics[i]));
    if (n > 1 && s[n - 1] == '\'')
        return put_word(b, s, n - 1);
    return put(b, s, n);
}

static bool digit(char c) { return c >= '0' && c <= '9'; }

/* Marks that are tokens wherever they stand. */
static const char *bracket(char c)
{
    switch (c) {
    case '(': return "-lrb-";
    case ')': return "-rrb-";
    case '[': return "-lsb-";
    case ']': return "-rsb-";
    case '{': return "-lcb-";
    case '}': return "-rcb-";
    case '"': return "''";
    case '%': return "%";
    case '!': return "!";
    case '?': return "?";
    case ';': return ";";
    case '*': return "*";
    case '=': return "=";
    default: return NULL;
    }
}

/* Does the mark at s[i] belong to the word round it? "1,000", "5:55", "1/2", "3.5", "t-shirt", "o'clock". */
static bool inside(const char *s, size_t n, size_t i)
{
    bool between = i > 0 && i + 1 < n, digits = between && digit(s[i - 1]) && digit(s[i + 1]);
    switch (s[i]) {
    case ',': case ':': return digits;
    case '/': return between; /* refrigerator/freezer */
    case '.': return digits || (i == 0 && n > 1 && digit(s[1]));
    case '$': case '#': return false;
    default: return true;
    }
}

/* A run without blanks. */
static bool piece(nm_buf *b, const char *s, size_t n)
{
    if (is_address(s, n))
        return put(b, s, n);
    while (n && s[0] == '\'' && !equals(s, n, "'tis") && !equals(s, n, "'twas") && !(n == 2 && strchr("smd", s[1]))) { /* an opening quote */
        s++;
        n--;
    }
    size_t start = 0;
    for (size_t i = 0; i < n; i++) {
        const char *mark = bracket(s[i]);
        bool last = i + 1 == n || (i + 2 == n && strchr(",;:!?)\"'", s[i + 1])); /* a stop before the end of the piece */
        if (s[i] == '.' && last && keeps_stop(s + start, i + 1 - start))
            continue;
        if (s[i] == '.' && is_acronym(s + start, i + 1 - start))
            continue;
        if (s[i] == '.' && i == start + 1 && i + 1 < n && isalpha((unsigned char)s[start]) && isalpha((unsigned char)s[i + 1]) && (i + 2 == n || s[i + 2] == '.'))
            continue; /* the first stop of an acronym */
        bool hyphen = s[i] == '-' && (i == start || i + 1 == n || s[i + 1] == '-');
        if (!mark && !hyphen && inside(s, n, i))
            continue;
        bool tag = s[i] == '#' && i + 1 < n && isalpha((unsigned char)s[i + 1]);
        if (tag)
            continue;
        if (!put_word(b, s + start, i - start) || !(mark ? put(b, mark, strlen(mark)) : put(b, s + i, 1)))
            return false;
        start = i + 1;
    }
    return start == n || put_word(b, s + start, n - start);
}

bool nm_ptb_tokens(nm_buf *out, const char *text)
{
    nm_buf low = { 0 }, line = { 0 };
    bool ok = plain(&low, text) && nm_buf_puts(&line, "");
    for (const char *p = low.data; ok && *p;) {
        size_t n = strcspn(p, " ");
        if (n)
            ok = piece(&line, p, n);
        p += n + (p[n] == ' ');
    }
    ok = ok && nm_buf_append(out, line.data, line.len);
    nm_buf_free(&low);
    nm_buf_free(&line);
    return ok;
}
