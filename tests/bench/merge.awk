# Lines of results that say the same thing (bench, case, peer, unit) as one: the median of the medians, the least and the most of all, and how
# busy others were at worst. Order of the first appearance; lines that are no figures are left out.
function text(key) { return match($0, "\"" key "\":\"[^\"]*\"") ? substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 5) : "" }
function number(key, at) {
    at = match($0, "\"" key "\":[-+.0-9e]+")
    return at ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : ""
}
function median(list, v, n, i, j, x) {
    n = split(list, v, " ")
    for (i = 2; i <= n; i++) {
        x = v[i] + 0
        for (j = i - 1; j >= 1 && v[j] + 0 > x; j--) v[j + 1] = v[j]
        v[j + 1] = x
    }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
!/"median":[-+.0-9e]+/ || /"bench":"(absent|done|commit)"/ { next }
{
    k = text("bench") SUBSEP text("case") SUBSEP text("peer") SUBSEP text("unit")
    if (!(k in runs)) { order[++count] = k; least[k] = number("min") + 0; most[k] = number("max") + 0 }
    runs[k] += number("runs")
    medians[k] = medians[k] " " number("median")
    if (number("min") + 0 < least[k]) least[k] = number("min") + 0
    if (number("max") + 0 > most[k]) most[k] = number("max") + 0
    if (number("others") + 0 > others[k]) others[k] = number("others") + 0
    if (number("value") != "") { bound[k] = text("name"); values[k] = values[k] " " number("value"); ratios[k] = ratios[k] " " number("ratio") }
    if (text("class") != "") class[k] = text("class")
}
END {
    for (i = 1; i <= count; i++) {
        k = order[i]
        split(k, part, SUBSEP)
        printf "{\"bench\":\"%s\",\"case\":\"%s\",\"unit\":\"%s\",\"median\":%.6g,\"min\":%.6g,\"max\":%.6g,\"runs\":%d", part[1], part[2], part[4], median(medians[k]), least[k], most[k], runs[k]
        if (k in bound) printf ",\"bound\":{\"name\":\"%s\",\"value\":%.6g},\"ratio\":%.4g", bound[k], median(values[k]), median(ratios[k])
        if (part[3] != "") printf ",\"peer\":\"%s\"", part[3]
        if (k in class) printf ",\"class\":\"%s\"", class[k]
        printf ",\"others\":%d}\n", others[k]
    }
}
