/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svg.h"

#include <math.h>

#include "axis.h"
#include "units.h"

#define SVG_WIDTH 800
#define SVG_HEIGHT 460
#define SVG_LEFT 76
#define SVG_RIGHT 776
#define SVG_TOP 84
#define SVG_BOTTOM 392
#define SVG_TICKS 9
#define SVG_TITLE_MAX 72

/* Greys and hues that can be read on white and on black. */
static const char svg_style[] =
    "<style>\n"
    "  text { font: 13px system-ui, 'DejaVu Sans', sans-serif; "
    "fill: #6e7781 }\n"
    "  .title { font-size: 18px; font-weight: 600 }\n"
    "  .axis { stroke: #6e7781; stroke-width: 1; fill: none }\n"
    "  .grid { stroke: #808890; stroke-opacity: .25 }\n"
    "  .good { font-size: 11px }\n"
    "  .margin { fill: #2da44e; fill-opacity: .14 }\n"
    "  .area { fill: #2f81f7; fill-opacity: .1 }\n"
    "  .curve { fill: none; stroke: #2f81f7; stroke-width: 2.5; "
    "stroke-linejoin: round }\n"
    "  .mark { stroke: #e8590c; stroke-width: 1.5; "
    "stroke-dasharray: 5 4 }\n"
    "  .dot { fill: #e8590c }\n"
    "  .chosen { fill: #e8590c; font-weight: 600 }\n"
    "  @media (prefers-color-scheme: light) { text { fill: #57606a } }\n"
    "  @media (prefers-color-scheme: dark) { text { fill: #adbac7 } }\n"
    "  text.chosen { fill: #e8590c }\n"
    "</style>\n";

typedef struct Svg {
    const WeirRecommendation *r;
    WeirAxis axis;
    GString *out;
} Svg;

static bool svg_is_char(gunichar c)
{
    return c >= 0x20 && c != 0xfffe && c != 0xffff && !g_unichar_iscntrl(c);
}

/* @text as a part of XML, where some characters cannot even be escaped. */
static char *svg_escape(const char *text, glong max)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    g_autoptr(GString) out = g_string_new(NULL);
    glong length = 0;

    for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (++length > max) {
            g_string_append(out, "…");
            break;
        }
        g_string_append_unichar(out, svg_is_char(c) ? c : 0xfffd);
    }
    return g_markup_escape_text(out->str, -1);
}

/* Coordinates are whole tenths, written without regard to the locale. */
static void svg_number(GString *out, const char *name, double value)
{
    long tenths = lround(value * 10);

    g_string_append_printf(out, " %s=\"%ld.%ld\"", name, tenths / 10,
                           tenths % 10);
}

static double svg_x(const Svg *svg, double size_bytes)
{
    return SVG_LEFT + weir_axis_position(&svg->axis, size_bytes) *
                      (SVG_RIGHT - SVG_LEFT);
}

static double svg_y(double ratio)
{
    return SVG_TOP + (1 - CLAMP(ratio, 0, 1)) * (SVG_BOTTOM - SVG_TOP);
}

static void svg_line(const Svg *svg, const char *class, double x1, double y1,
                     double x2, double y2)
{
    g_string_append_printf(svg->out, "<line class=\"%s\"", class);
    svg_number(svg->out, "x1", x1);
    svg_number(svg->out, "y1", y1);
    svg_number(svg->out, "x2", x2);
    svg_number(svg->out, "y2", y2);
    g_string_append(svg->out, "/>\n");
}

/* @text is XML.  @anchor: start, middle or end */
static void svg_text(const Svg *svg, const char *class, const char *anchor,
                     double x, double y, const char *text)
{
    g_string_append_printf(svg->out, "<text class=\"%s\" text-anchor=\"%s\"",
                           class, anchor);
    svg_number(svg->out, "x", x);
    svg_number(svg->out, "y", y);
    g_string_append_printf(svg->out, ">%s</text>\n", text);
}

static void svg_begin(const Svg *svg, const char *vm, const char *disk)
{
    g_autofree char *title = g_strdup_printf("Cache for disk %s of %s", disk,
                                             vm);
    g_autofree char *text = svg_escape(title, SVG_TITLE_MAX);
    g_autofree char *whole = svg_escape(title, G_MAXLONG);

    g_string_append_printf(
        svg->out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
        "width=\"%d\" height=\"%d\" role=\"img\">\n<title>%s</title>\n%s",
        SVG_WIDTH, SVG_HEIGHT, SVG_WIDTH, SVG_HEIGHT, whole, svg_style);
    svg_text(svg, "title", "start", SVG_LEFT, 34, text);
}

/* What was recommended, in words, under the title. */
static void svg_add_summary(const Svg *svg)
{
    const WeirRecommendation *r = svg->r;
    g_autofree char *size = weir_format_bytes(r->size_bytes);
    g_autofree char *set = weir_format_bytes(r->unique_bytes);
    g_autoptr(GString) text = g_string_new(NULL);

    if (r->size_bytes > 0) {
        g_string_append_printf(text, "%s recommended: misses %.1f%%, the best "
                               "is %.1f%%", size, 100 * r->miss_ratio,
                               100 * r->best_ratio);
    } else {
        g_string_append(text, "no cache helps");
    }
    g_string_append_printf(text, "; working set %s; trust: %s", set,
                           weir_trust_name(r->trust));
    svg_text(svg, "summary", "start", SVG_LEFT, 58, text->str);
}

static void svg_add_axes(const Svg *svg)
{
    const WeirAxis *axis = &svg->axis;

    for (int percent = 0; percent <= 100; percent += 20) {
        g_autofree char *label = g_strdup_printf("%d%%", percent);
        double y = svg_y(percent / 100.0);

        svg_line(svg, "grid", SVG_LEFT, y, SVG_RIGHT, y);
        svg_text(svg, "tick", "end", SVG_LEFT - 8, y + 4, label);
    }
    for (int n = axis->first; n <= axis->high; n += axis->step) {
        g_autofree char *label = weir_axis_label(n);
        double x = svg_x(svg, exp2(n));

        svg_line(svg, "axis", x, SVG_BOTTOM, x, SVG_BOTTOM + 5);
        svg_text(svg, "tick", "middle", x, SVG_BOTTOM + 21, label);
    }
    svg_line(svg, "axis", SVG_LEFT, SVG_BOTTOM, SVG_RIGHT, SVG_BOTTOM);
    svg_line(svg, "axis", SVG_LEFT, SVG_TOP, SVG_LEFT, SVG_BOTTOM);
    svg_text(svg, "unit", "middle", (SVG_LEFT + SVG_RIGHT) / 2.0,
             SVG_BOTTOM + 48, "size of the cache");
    g_string_append_printf(svg->out, "<text class=\"unit\" "
                           "text-anchor=\"middle\" transform=\"translate(22 "
                           "%d) rotate(-90)\">accesses that miss it</text>\n",
                           (SVG_TOP + SVG_BOTTOM) / 2);
}

/* The miss ratios that are good enough. */
static void svg_add_margin(const Svg *svg)
{
    double top = svg_y(svg->r->best_ratio + svg->r->margin);
    g_autofree char *label = g_strdup_printf("up to %.3g%% above the best",
                                             100 * svg->r->margin);

    g_string_append(svg->out, "<rect class=\"margin\"");
    svg_number(svg->out, "x", SVG_LEFT);
    svg_number(svg->out, "y", top);
    svg_number(svg->out, "width", SVG_RIGHT - SVG_LEFT);
    svg_number(svg->out, "height", svg_y(svg->r->best_ratio) - top);
    g_string_append(svg->out, "/>\n");
    svg_text(svg, "good", "start", SVG_LEFT + 8, top - 5, label);
}

static void svg_add_curve(const Svg *svg)
{
    g_autoptr(GString) path = g_string_new(NULL);

    for (guint i = 0; i < svg->r->curve->len; i++) {
        const WeirCurvePoint *point = weir_curve_at(svg->r->curve, i);

        g_string_append_printf(path, "%s%ld %ld", i ? " L" : "M",
                               lround(svg_x(svg, point->size_bytes)),
                               lround(svg_y(point->miss_ratio)));
    }
    g_string_append_printf(svg->out, "<path class=\"area\" d=\"%s V%d H%d Z\"/>"
                           "\n<path class=\"curve\" d=\"%s\"/>\n", path->str,
                           SVG_BOTTOM, SVG_LEFT, path->str);
}

static void svg_add_mark(const Svg *svg)
{
    const WeirRecommendation *r = svg->r;
    g_autofree char *size = weir_format_bytes(r->size_bytes);
    double x = svg_x(svg, r->size_bytes);
    double y = svg_y(r->miss_ratio);
    bool on_right = x < SVG_LEFT + 0.75 * (SVG_RIGHT - SVG_LEFT);

    svg_line(svg, "mark", x, SVG_TOP, x, SVG_BOTTOM);
    g_string_append(svg->out, "<circle class=\"dot\" r=\"5\"");
    svg_number(svg->out, "cx", x);
    svg_number(svg->out, "cy", y);
    g_string_append(svg->out, "/>\n");
    svg_text(svg, "chosen", on_right ? "start" : "end",
             on_right ? x + 9 : x - 9, SVG_TOP + 14, size);
}

char *weir_svg_recommendation(const WeirRecommendation *r, const char *vm,
                              const char *disk)
{
    Svg svg = {
        .r = r,
        .axis = weir_axis_for(r->curve, SVG_TICKS),
        .out = g_string_new(NULL),
    };

    svg_begin(&svg, vm, disk);
    svg_add_summary(&svg);
    if (r->size_bytes > 0) {
        svg_add_margin(&svg);
    }
    svg_add_axes(&svg);
    svg_add_curve(&svg);
    if (r->size_bytes > 0) {
        svg_add_mark(&svg);
    }
    g_string_append(svg.out, "</svg>\n");
    return g_string_free(svg.out, FALSE);
}
