/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "yamltree.h"

#include <string.h>
#include <yaml.h>

typedef struct YamlReader {
    yaml_parser_t parser;
    const char *data;
    gsize length;
    const char *file;       /* interned */
    WeirYaml *root;
    GPtrArray *open;        /* WeirYaml: mappings and sequences, not owned */
    WeirYaml *key;          /* read, its value is next; owned */
    unsigned documents;
    unsigned nodes;
    GError **error;
} YamlReader;

void weir_yaml_free(WeirYaml *node)
{
    if (node) {
        g_free(node->text);
        g_clear_pointer(&node->keys, g_ptr_array_unref);
        g_clear_pointer(&node->values, g_ptr_array_unref);
        g_free(node);
    }
}

static WeirYaml *yaml_node_new(const YamlReader *reader, WeirYamlKind kind,
                               const yaml_mark_t *mark)
{
    WeirYaml *node = g_new0(WeirYaml, 1);

    node->kind = kind;
    node->file = reader->file;
    node->line = (unsigned)mark->line + 1;
    node->column = (unsigned)mark->column + 1;
    if (kind != WEIR_YAML_SCALAR) {
        node->values = g_ptr_array_new_with_free_func(
            (GDestroyNotify)weir_yaml_free);
    }
    if (kind == WEIR_YAML_MAPPING) {
        node->keys = g_ptr_array_new_with_free_func(
            (GDestroyNotify)weir_yaml_free);
    }
    return node;
}

static int yaml_key_index(const WeirYaml *mapping, const char *name)
{
    for (guint i = 0; mapping->keys && i < mapping->keys->len; i++) {
        const WeirYaml *key = g_ptr_array_index(mapping->keys, i);

        if (strcmp(key->text, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

WeirYaml *weir_yaml_member(const WeirYaml *mapping, const char *name)
{
    int index = yaml_key_index(mapping, name);

    return index < 0 ? NULL : g_ptr_array_index(mapping->values, index);
}

WeirYaml *weir_yaml_member_of(const WeirYaml *mapping, const char *name,
                              WeirYamlKind kind)
{
    WeirYaml *value = mapping->kind == WEIR_YAML_MAPPING
                      ? weir_yaml_member(mapping, name) : NULL;

    return value && value->kind == kind ? value : NULL;
}

bool weir_yaml_is_nothing(const WeirYaml *node)
{
    return node->kind == WEIR_YAML_SCALAR && !*node->text && !node->quoted;
}

bool weir_yaml_is_true(const WeirYaml *node)
{
    static const char *const words[] = { "true", "on", "yes", NULL };

    return node->kind == WEIR_YAML_SCALAR &&
           g_strv_contains(words, node->text);
}

WeirYaml *weir_yaml_steal(WeirYaml *mapping, guint index, WeirYaml **key)
{
    WeirYaml *name = g_ptr_array_steal_index(mapping->keys, index);

    if (key) {
        *key = name;
    } else {
        weir_yaml_free(name);
    }
    return g_ptr_array_steal_index(mapping->values, index);
}

void weir_yaml_set(WeirYaml *mapping, WeirYaml *key, WeirYaml *value)
{
    int index = yaml_key_index(mapping, key->text);

    if (index >= 0) {
        weir_yaml_free(weir_yaml_steal(mapping, (guint)index, NULL));
    }
    g_ptr_array_insert(mapping->keys, index, key);
    g_ptr_array_insert(mapping->values, index, value);
}

static bool yaml_refuse(YamlReader *reader, gsize line, gsize column,
                        const char *format, ...) G_GNUC_PRINTF(4, 5);

/* @line and @column from 0, as libyaml has them. */
static bool yaml_refuse(YamlReader *reader, gsize line, gsize column,
                        const char *format, ...)
{
    g_autofree char *message = NULL;
    g_autofree char *printable = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    printable = weir_printable(message);
    g_set_error(reader->error, WEIR_ERROR, WEIR_ERROR_POSITION,
                "%s:%zu:%zu: %s", reader->file, line + 1, column + 1,
                printable);
    return false;
}

/* libyaml has no mark for what its decoder refuses, only an offset. */
static bool yaml_refuse_encoding(YamlReader *reader)
{
    gsize end = MIN(reader->parser.problem_offset, reader->length);
    gsize line = 0;
    gsize column = 0;

    for (gsize i = 0; i < end; i++) {
        unsigned char c = (unsigned char)reader->data[i];

        if (c == '\n') {
            line++;
            column = 0;
        } else if ((c & 0xc0) != 0x80) {
            column++;
        }
    }
    return yaml_refuse(reader, line, column,
                       "found a byte that is no printable UTF-8 (%s), "
                       "expected text", reader->parser.problem);
}

static bool yaml_refuse_syntax(YamlReader *reader)
{
    const yaml_parser_t *parser = &reader->parser;

    if (parser->error == YAML_READER_ERROR) {
        return yaml_refuse_encoding(reader);
    }
    return yaml_refuse(reader, parser->problem_mark.line,
                       parser->problem_mark.column, "not YAML: %s%s%s",
                       parser->problem ? parser->problem : "out of memory",
                       parser->context ? " " : "",
                       parser->context ? parser->context : "");
}

/* Give @node, which is consumed, its place in the tree. */
static bool yaml_place(YamlReader *reader, WeirYaml *node)
{
    WeirYaml *parent = NULL;
    int index;

    if (reader->open->len == 0) {
        reader->root = node;
        return true;
    }
    parent = g_ptr_array_index(reader->open, reader->open->len - 1);
    if (parent->kind == WEIR_YAML_SEQUENCE) {
        g_ptr_array_add(parent->values, node);
        return true;
    }
    if (reader->key) {
        g_ptr_array_add(parent->keys, g_steal_pointer(&reader->key));
        g_ptr_array_add(parent->values, node);
        return true;
    }
    reader->key = node;
    if (node->kind != WEIR_YAML_SCALAR) {
        return yaml_refuse(reader, node->line - 1, node->column - 1,
                           "found a %s as a key, expected a word",
                           node->kind == WEIR_YAML_MAPPING ? "mapping"
                                                           : "list");
    }
    index = yaml_key_index(parent, node->text);
    if (index >= 0) {
        const WeirYaml *first = g_ptr_array_index(parent->keys, index);

        return yaml_refuse(reader, node->line - 1, node->column - 1,
                           "found key '%s' again, expected it once (it is "
                           "on line %u)", node->text, first->line);
    }
    return true;
}

static bool yaml_scalar(YamlReader *reader, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    WeirYaml *node;

    if (strlen(text) != event->data.scalar.length) {
        return yaml_refuse(reader, event->start_mark.line,
                           event->start_mark.column,
                           "found a zero byte, expected text");
    }
    node = yaml_node_new(reader, WEIR_YAML_SCALAR, &event->start_mark);
    node->text = g_strdup(text);
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return yaml_place(reader, node);
}

static bool yaml_open(YamlReader *reader, WeirYamlKind kind,
                      const yaml_event_t *event)
{
    WeirYaml *node = yaml_node_new(reader, kind, &event->start_mark);
    bool ok = yaml_place(reader, node);

    if (ok && reader->open->len == WEIR_YAML_MAX_DEPTH) {
        ok = yaml_refuse(reader, node->line - 1, node->column - 1,
                         "found more than %d levels, expected fewer",
                         WEIR_YAML_MAX_DEPTH);
    }
    g_ptr_array_add(reader->open, node);
    return ok;
}

/* Anchors, aliases and tags: nothing that a policy needs. */
static bool yaml_plain_event(YamlReader *reader, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL;
    const yaml_char_t *tag = NULL;

    switch (event->type) {
    case YAML_ALIAS_EVENT:
        anchor = event->data.alias.anchor;
        break;
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor || tag) {
        return yaml_refuse(reader, event->start_mark.line,
                           event->start_mark.column,
                           "found %s '%s', expected a plain value",
                           tag ? "tag"
                               : event->type == YAML_ALIAS_EVENT ? "alias"
                                                                 : "anchor",
                           tag ? tag : anchor);
    }
    return true;
}

static bool yaml_event(YamlReader *reader, const yaml_event_t *event)
{
    if (!yaml_plain_event(reader, event)) {
        return false;
    }
    if (reader->nodes++ > WEIR_YAML_MAX_NODES) {
        return yaml_refuse(reader, event->start_mark.line,
                           event->start_mark.column,
                           "found more than %d values, expected fewer",
                           WEIR_YAML_MAX_NODES);
    }
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (reader->documents++ > 0) {
            return yaml_refuse(reader, event->start_mark.line,
                               event->start_mark.column,
                               "found a second document, expected one policy "
                               "per file");
        }
        return true;
    case YAML_SCALAR_EVENT:
        return yaml_scalar(reader, event);
    case YAML_SEQUENCE_START_EVENT:
        return yaml_open(reader, WEIR_YAML_SEQUENCE, event);
    case YAML_MAPPING_START_EVENT:
        return yaml_open(reader, WEIR_YAML_MAPPING, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        g_ptr_array_set_size(reader->open, (gint)reader->open->len - 1);
        return true;
    default:
        return true;
    }
}

static bool yaml_read(YamlReader *reader)
{
    bool ok = true;
    bool end = false;

    while (ok && !end) {
        yaml_event_t event;

        if (!yaml_parser_parse(&reader->parser, &event)) {
            return yaml_refuse_syntax(reader);
        }
        ok = yaml_event(reader, &event);
        end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    if (ok && !reader->root) {
        ok = yaml_refuse(reader, 0, 0, "found nothing, expected a policy");
    }
    return ok;
}

WeirYaml *weir_yaml_parse(const char *data, gsize length, const char *file,
                          GError **error)
{
    g_autofree char *name = weir_printable(file);
    YamlReader reader = {
        .data = data, .length = length, .error = error,
        .file = g_intern_string(name),
    };

    if (length > WEIR_YAML_MAX_BYTES) {
        yaml_refuse(&reader, 0, 0, "found %zu bytes, expected at most %u",
                    length, WEIR_YAML_MAX_BYTES);
        return NULL;
    }
    if (!yaml_parser_initialize(&reader.parser)) {
        g_error("out of memory");
    }
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)data,
                                 length);
    reader.open = g_ptr_array_new();
    if (!yaml_read(&reader)) {
        g_clear_pointer(&reader.root, weir_yaml_free);
    }
    weir_yaml_free(reader.key);
    g_ptr_array_unref(reader.open);
    yaml_parser_delete(&reader.parser);
    return reader.root;
}

static int yaml_append(void *opaque, unsigned char *data, size_t length)
{
    g_string_append_len(opaque, (const char *)data, (gssize)length);
    return 1;
}

/* Consumes @event. */
static void yaml_emit(yaml_emitter_t *emitter, yaml_event_t *event)
{
    if (!yaml_emitter_emit(emitter, event)) {
        g_error("libyaml: %s", emitter->problem);
    }
}

static void yaml_emit_node(yaml_emitter_t *emitter, const WeirYaml *node)
{
    bool is_mapping = node->kind == WEIR_YAML_MAPPING;
    yaml_event_t event;

    if (node->kind == WEIR_YAML_SCALAR) {
        yaml_scalar_event_initialize(
            &event, NULL, NULL, (yaml_char_t *)node->text,
            (int)strlen(node->text), 1, 1,
            node->quoted ? YAML_DOUBLE_QUOTED_SCALAR_STYLE
                         : YAML_PLAIN_SCALAR_STYLE);
        yaml_emit(emitter, &event);
        return;
    }
    if (is_mapping) {
        yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
                                            YAML_BLOCK_MAPPING_STYLE);
    } else {
        yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
                                             YAML_BLOCK_SEQUENCE_STYLE);
    }
    yaml_emit(emitter, &event);
    for (guint i = 0; i < node->values->len; i++) {
        if (is_mapping) {
            yaml_emit_node(emitter, g_ptr_array_index(node->keys, i));
        }
        yaml_emit_node(emitter, g_ptr_array_index(node->values, i));
    }
    if (is_mapping) {
        yaml_mapping_end_event_initialize(&event);
    } else {
        yaml_sequence_end_event_initialize(&event);
    }
    yaml_emit(emitter, &event);
}

char *weir_yaml_text(const WeirYaml *root, gsize *length)
{
    GString *text = g_string_new(NULL);
    yaml_emitter_t emitter;
    yaml_event_t event;

    if (!yaml_emitter_initialize(&emitter)) {
        g_error("out of memory");
    }
    yaml_emitter_set_output(&emitter, yaml_append, text);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING);
    yaml_emit(&emitter, &event);
    yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1);
    yaml_emit(&emitter, &event);
    yaml_emit_node(&emitter, root);
    yaml_document_end_event_initialize(&event, 1);
    yaml_emit(&emitter, &event);
    yaml_stream_end_event_initialize(&event);
    yaml_emit(&emitter, &event);
    yaml_emitter_delete(&emitter);
    *length = text->len;
    return g_string_free(text, FALSE);
}
