# captions.awk - captions.jsonl from names.tsv and emoji.tsv: for each label a list from which training draws one text at random.
#     awk -v en=templates.en.txt -v ko=templates.ko.txt -f captions.awk names.tsv emoji.tsv > captions.jsonl
# Columns: label, names (en), names (ko), hypernyms (en), hypernyms (ko); for emoji: picture, label, name (en), name (ko), keywords (en),
# keywords (ko). Alternatives are separated by "|"; the first name counts three times. Half of the texts are English, half Korean.
BEGIN {
    FS = "\t"
    while ((getline line < en) > 0) ten[++nen] = line
    while ((getline line < ko) > 0) tko[++nko] = line
}
# Both languages about equally often: the shorter list is repeated.
function both(a, na, b, nb,    c) {
    list = a "," b
    for (c = int(na / nb + 0.5); c > 1; c--) list = list "," b
    for (c = int(nb / na + 0.5); c > 1; c--) list = list "," a
}
function quote(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); return "\"" s "\"" }
function put(s) { list = list (list == "" ? "" : ",") quote(s); count++ }
function fill(t, s,    i) { i = index(t, "{}"); return substr(t, 1, i - 1) s substr(t, i + 2) }
function names(text, t, n, kinds, joint,    a, k, i, j, m, h, c) {
    k = split(text, a, "|"); m = split(kinds, h, "|")
    for (i = 1; i <= k; i++)
        for (c = i == 1 ? (k > 1 ? 3 : 1) : 1; c > 0; c--) {
            for (j = 1; j <= n; j++) put(fill(t[j], a[i]))
            for (j = 1; j <= m; j++) put(a[i] joint[1] h[j] joint[2])
        }
}
function words(name, keys, suffix, what,    a, k, i) {
    for (i = 0; i < 6; i++) put(name)
    for (i = 0; i < 3; i++) put(name suffix)
    put(fill(what, name))
    k = split(keys, a, "|")
    for (i = 1; i <= k && i <= 4; i++) if (a[i] != name) put(name ", " a[i])
    for (i = 1; i <= k && i <= 2; i++) if (a[i] != name) put(a[i] suffix)
}
function start() { list = ""; count = 0 }
FNR == NR {
    jen[1] = ", a kind of "; jen[2] = ""; jko[1] = ", "; jko[2] = "의 한 종류"
    start(); names($2, ten, nen, $4, jen); first = list; n = count
    start(); names($3, tko, nko, $5, jko)
    both(first, n, list, count)
    print "{\"label\":" quote($1) ",\"captions\":[" list "]}"
    next
}
{
    start(); words($3, $5, " emoji", "an emoji of {}"); first = list; n = count
    if ($4 != "") { start(); words($4, $6, " 이모지", "{} 그림문자"); both(first, n, list, count) }
    print "{\"label\":" quote($2) ",\"captions\":[" list "]}"
}
