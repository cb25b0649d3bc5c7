/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libxml2 makes its tree as always; each element gets its place in the text
 * besides, for which libxml2 is asked when it has read the tag.
 */
#include "domain.h"

#include <libxml/parser.h>
#include <libxml/SAX2.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <string.h>

#include "policy.h"

#define DOMAIN_MAX_ATTRIBUTES 8192

typedef struct Parser {
    const char *text;
    gsize length;
    guint depth;
    GPtrArray *elements;    /* WeirElement, in the _private of its node */
    char *refused;          /* why we have stopped; NULL: we have not */
} Parser;

/* --- memory --- */

static void domain_disk_free(WeirDomainDisk *disk)
{
    g_free(disk->target);
    g_free(disk->alias);
    g_free(disk->type);
    g_free(disk->device);
    g_free(disk->format);
    g_free(disk->source);
    g_free(disk->cache);
    g_free(disk->io);
    g_free(disk->bus);
    g_free(disk->iothread);
    g_free(disk->foreign);
    g_array_unref(disk->kept);
    g_free(disk);
}

static void domain_was_free(WeirDomainWas *was)
{
    g_free(was->text);
    if (was->disk) {
        domain_disk_free(was->disk);
    }
    g_free(was);
}

static void domain_assigned_free(WeirAssigned *assigned)
{
    g_free(assigned->target);
    g_free(assigned->policy);
    g_free(assigned);
}

WeirAssigned *weir_assigned_new(const char *target, const char *policy)
{
    WeirAssigned *assigned = g_new0(WeirAssigned, 1);

    assigned->target = g_strdup(target);
    assigned->policy = g_strdup(policy);
    return assigned;
}

GPtrArray *weir_assigned_array(void)
{
    return g_ptr_array_new_with_free_func(
        (GDestroyNotify)domain_assigned_free);
}

static WeirDomain *domain_new(const char *text, gsize length)
{
    WeirDomain *domain = g_new0(WeirDomain, 1);

    domain->text = text;
    domain->length = length;
    domain->uid = domain->gid = -1;
    domain->disks = g_ptr_array_new_with_free_func(
        (GDestroyNotify)domain_disk_free);
    domain->assigned = weir_assigned_array();
    domain->was_disks = g_ptr_array_new_with_free_func(
        (GDestroyNotify)domain_was_free);
    return domain;
}

void weir_domain_free(WeirDomain *domain)
{
    if (domain) {
        g_free(domain->type);
        g_free(domain->name);
        g_free(domain->uuid);
        g_free(domain->arch);
        g_free(domain->emulator);
        g_ptr_array_unref(domain->disks);
        g_ptr_array_unref(domain->assigned);
        g_ptr_array_unref(domain->was_disks);
        g_free(domain->prefix);
        g_free(domain->was_emulator);
        g_free(domain->was_metadata);
        g_free(domain);
    }
}

/* --- the parser --- */

static void parser_refuse(xmlParserCtxtPtr ctxt, const char *why)
{
    Parser *parser = ctxt->_private;

    if (!parser->refused) {
        parser->refused = g_strdup_printf(
            "line %d: found %s", ctxt->input ? ctxt->input->line : 0, why);
    }
    xmlStopParser(ctxt);
}

/* How far libxml2 has read. */
static gsize parser_offset(xmlParserCtxtPtr ctxt)
{
    const Parser *parser = ctxt->_private;
    long offset = xmlByteConsumed(ctxt);

    return offset < 0 ? 0 : MIN((gsize)offset, parser->length);
}

/* The '<' of the tag that ends before @end; values of attributes have none. */
static gsize parser_tag_begin(const Parser *parser, gsize end)
{
    while (end > 0 && parser->text[end - 1] != '<') {
        end--;
    }
    return end > 0 ? end - 1 : 0;
}

static void parser_doctype(void *opaque, const xmlChar *name,
                           const xmlChar *external, const xmlChar *system)
{
    (void)name;
    (void)external;
    (void)system;
    parser_refuse(opaque, "a document type, expected none");
}

static void parser_start(void *opaque, const xmlChar *name,
                         const xmlChar *prefix, const xmlChar *uri,
                         int spaces, const xmlChar **namespaces,
                         int attributes, int defaulted, const xmlChar **values)
{
    xmlParserCtxtPtr ctxt = opaque;
    Parser *parser = ctxt->_private;
    gsize end = parser_offset(ctxt);
    WeirElement *element;

    if (++parser->depth > WEIR_DOMAIN_MAX_DEPTH) {
        parser_refuse(ctxt, "elements that are nested too deeply");
        return;
    }
    xmlSAX2StartElementNs(ctxt, name, prefix, uri, spaces, namespaces,
                          attributes, defaulted, values);
    if (!ctxt->node) {
        return;
    }
    element = g_new0(WeirElement, 1);
    element->present = true;
    element->open.begin = parser_tag_begin(parser, end);
    /* what ends the tag has not been read yet */
    element->empty = end < parser->length && parser->text[end] == '/';
    element->open.end = MIN(end + (element->empty ? 2 : 1), parser->length);
    element->close.begin = element->close.end = element->open.end;
    g_ptr_array_add(parser->elements, element);
    ctxt->node->_private = element;
}

static void parser_end(void *opaque, const xmlChar *name,
                       const xmlChar *prefix, const xmlChar *uri)
{
    xmlParserCtxtPtr ctxt = opaque;
    Parser *parser = ctxt->_private;
    WeirElement *element = ctxt->node ? ctxt->node->_private : NULL;

    parser->depth--;
    if (element && !element->empty) {
        element->close.end = parser_offset(ctxt);
        element->close.begin = parser_tag_begin(parser,
                                                element->close.end);
    }
    xmlSAX2EndElementNs(ctxt, name, prefix, uri);
}

static void parser_set_error(xmlParserCtxtPtr ctxt, const Parser *parser,
                             GError **error)
{
    const xmlError *last = xmlCtxtGetLastError(ctxt);
    g_autofree char *message = NULL;

    if (parser->refused) {
        weir_set_error(error, "domain XML: %s", parser->refused);
        return;
    }
    message = g_utf8_make_valid(last && last->message ? last->message
                                                      : "it is no XML", -1);
    weir_set_error(error, "domain XML: line %d: %s", last ? last->line : 0,
                   g_strstrip(message));
}

/*
 * Whether no tag can have more attributes than DOMAIN_MAX_ATTRIBUTES: libxml2
 * compares each with each.  A '<' begins a tag, and none is in an attribute.
 */
static bool parser_check_attributes(const char *text, gsize length,
                                    GError **error)
{
    guint line = 1;
    guint n = 0;

    for (gsize i = 0; i < length; i++) {
        line += text[i] == '\n';
        n = text[i] == '<' ? 0 : n + (text[i] == '=');
        if (n > DOMAIN_MAX_ATTRIBUTES) {
            weir_set_error(error, "domain XML: line %u: found too many "
                           "attributes", line);
            return false;
        }
    }
    return true;
}

static bool parser_check_text(const char *text, gsize length, GError **error)
{
    if (length > WEIR_DOMAIN_MAX_BYTES) {
        weir_set_error(error, "domain XML: found more than %u KiB",
                       WEIR_DOMAIN_MAX_BYTES >> 10);
        return false;
    }
    if (!g_utf8_validate(text, (gssize)length, NULL)) {
        weir_set_error(error, "domain XML: found bytes that are not UTF-8");
        return false;
    }
    return parser_check_attributes(text, length, error);
}

/* The tree, whose nodes have @parser's elements; or NULL with @error set. */
static xmlDocPtr parser_run(Parser *parser, GError **error)
{
    xmlParserCtxtPtr ctxt;
    xmlDocPtr doc;

    if (!parser_check_text(parser->text, parser->length, error)) {
        return NULL;
    }
    ctxt = xmlNewParserCtxt();
    ctxt->_private = parser;
    ctxt->sax->internalSubset = parser_doctype;
    ctxt->sax->startElementNs = parser_start;
    ctxt->sax->endElementNs = parser_end;
    doc = xmlCtxtReadMemory(ctxt, parser->text, (int)parser->length, NULL,
                            NULL, XML_PARSE_NONET | XML_PARSE_NOERROR |
                            XML_PARSE_NOWARNING);
    if (doc && doc->encoding &&
        g_ascii_strcasecmp((const char *)doc->encoding, "UTF-8") != 0) {
        /* its places would not be ours */
        parser_refuse(ctxt, "another encoding than UTF-8");
    }
    if (parser->refused || !doc) {
        parser_set_error(ctxt, parser, error);
        xmlFreeDoc(doc);
        doc = NULL;
    }
    xmlFreeParserCtxt(ctxt);
    return doc;
}

/* --- the tree --- */

static bool node_is(const xmlNode *node, const char *name, const char *uri)
{
    return node->type == XML_ELEMENT_NODE &&
           strcmp((const char *)node->name, name) == 0 &&
           (uri ? node->ns && strcmp((const char *)node->ns->href, uri) == 0
                : !node->ns);
}

/* The first child of that name after @previous (NULL: from the beginning). */
static xmlNode *node_next(const xmlNode *parent, const xmlNode *previous,
                          const char *name, const char *uri)
{
    xmlNode *node = previous ? previous->next : parent ? parent->children
                                                       : NULL;

    while (node && !node_is(node, name, uri)) {
        node = node->next;
    }
    return node;
}

static xmlNode *node_child(const xmlNode *parent, const char *name)
{
    return node_next(parent, NULL, name, NULL);
}

/* Attribute or text as memory of GLib's; NULL if there is none. */
static char *node_attribute(const xmlNode *node, const char *name)
{
    xmlChar *value = node ? xmlGetNoNsProp(node, (const xmlChar *)name)
                          : NULL;
    char *copy = g_strdup((char *)value);

    xmlFree(value);
    return copy;
}

static char *node_text(const xmlNode *node)
{
    xmlChar *value = node ? xmlNodeGetContent(node) : NULL;
    char *copy = g_strdup((char *)value);

    xmlFree(value);
    return copy;
}

/*
 * The only child of that name, or NULL.  Two, of which libvirt takes one or the
 * other, are an error.
 */
static bool node_only(const xmlNode *parent, const char *name,
                      const char *uri, xmlNode **found, WeirElement *element,
                      GError **error)
{
    xmlNode *node = node_next(parent, NULL, name, uri);

    *found = node;
    if (node && node_next(parent, node, name, uri)) {
        weir_set_error(error, "domain XML: line %ld: found a second <%s>, "
                       "expected one", xmlGetLineNo(
                           node_next(parent, node, name, uri)), name);
        return false;
    }
    if (node && element) {
        *element = *(const WeirElement *)node->_private;
    }
    return true;
}

/* --- what is read of it --- */

/* What of the elements of a disk is there with a vhostuser disk as well. */
static void domain_read_kept(WeirDomainDisk *disk, const xmlNode *node)
{
    static const char *const kept[] = {
        "target", "address", "boot", "alias", NULL
    };
    static const char *const used[] = {
        "driver", "source", "backingStore", "readonly", NULL
    };

    disk->kept = g_array_new(FALSE, FALSE, sizeof(WeirSpan));
    for (xmlNode *child = node->children; child; child = child->next) {
        const char *name = (const char *)child->name;
        const WeirElement *element = child->_private;
        WeirSpan span;

        if (child->type != XML_ELEMENT_NODE) {
            continue;
        }
        if (g_strv_contains(kept, name)) {
            span = (WeirSpan) { element->open.begin, element->close.end };
            g_array_append_val(disk->kept, span);
        } else if (!disk->foreign && !g_strv_contains(used, name)) {
            disk->foreign = g_strdup_printf("<%s>", name);
        }
    }
}

/* Attributes of its driver that a vhostuser disk cannot have. */
static void domain_read_driver(WeirDomainDisk *disk, const xmlNode *driver)
{
    static const char *const used[] = {
        "name", "type", "cache", "io", "discard", "iothread", NULL
    };

    for (const xmlAttr *attribute = driver ? driver->properties : NULL;
         attribute; attribute = attribute->next) {
        const char *name = (const char *)attribute->name;

        if (!disk->foreign && !g_strv_contains(used, name)) {
            disk->foreign = g_strdup_printf("<driver %s=>", name);
        }
    }
}

static WeirDomainDisk *domain_disk_new(const xmlNode *node)
{
    WeirDomainDisk *disk = g_new0(WeirDomainDisk, 1);
    const xmlNode *driver = node_child(node, "driver");
    const xmlNode *source = node_child(node, "source");

    disk->element = *(const WeirElement *)node->_private;
    domain_read_kept(disk, node);
    domain_read_driver(disk, driver);
    disk->bus = node_attribute(node_child(node, "target"), "bus");
    disk->iothread = node_attribute(driver, "iothread");
    disk->target = node_attribute(node_child(node, "target"), "dev");
    disk->alias = node_attribute(node_child(node, "alias"), "name");
    disk->type = node_attribute(node, "type");
    disk->device = node_attribute(node, "device");
    if (!disk->type) {
        disk->type = g_strdup("file");      /* as libvirt */
    }
    if (!disk->device) {
        disk->device = g_strdup("disk");
    }
    disk->format = node_attribute(driver, "type");
    disk->cache = node_attribute(driver, "cache");
    disk->io = node_attribute(driver, "io");
    disk->source = node_attribute(source, "file");
    if (!disk->source) {
        disk->source = node_attribute(source, "dev");
    }
    disk->read_only = node_child(node, "readonly") != NULL;
    disk->shareable = node_child(node, "shareable") != NULL;
    disk->transient = node_child(node, "transient") != NULL;
    return disk;
}

/* Whether there may be one more; what follows compares each with each. */
static bool domain_has_room(const GPtrArray *array, GError **error)
{
    if (array->len == WEIR_DOMAIN_MAX_DISKS) {
        weir_set_error(error, "domain XML: found more than %d disks",
                       WEIR_DOMAIN_MAX_DISKS);
        return false;
    }
    return true;
}

static bool domain_read_devices(WeirDomain *domain, const xmlNode *root,
                                GError **error)
{
    xmlNode *devices;
    xmlNode *emulator;

    if (!node_only(root, "devices", NULL, &devices, &domain->devices,
                   error) ||
        !node_only(devices, "emulator", NULL, &emulator,
                   &domain->emulator_element, error)) {
        return false;
    }
    domain->emulator = node_text(emulator);
    for (xmlNode *node = node_child(devices, "disk"); node;
         node = node_next(devices, node, "disk", NULL)) {
        if (!domain_has_room(domain->disks, error)) {
            return false;
        }
        g_ptr_array_add(domain->disks, domain_disk_new(node));
    }
    return true;
}

static bool domain_read_assigned(WeirDomain *domain, const xmlNode *node,
                                 GError **error)
{
    g_autofree char *target = node_attribute(node, "target");
    g_autofree char *policy = node_attribute(node, "policy");

    if (!target || !weir_name_ok(target, WEIR_VM_MAX_NAME) || !policy ||
        !weir_name_ok(policy, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "domain XML: line %ld: found target '%s' and "
                       "policy '%s', expected names for both",
                       xmlGetLineNo((xmlNode *)node), target ? target : "",
                       policy ? policy : "");
        return false;
    }
    if (weir_domain_policy(domain, target)) {
        weir_set_error(error, "domain XML: line %ld: found a second policy "
                       "for disk '%s', expected one",
                       xmlGetLineNo((xmlNode *)node), target);
        return false;
    }
    g_ptr_array_add(domain->assigned, weir_assigned_new(target, policy));
    return true;
}

/* The only disk in @text, and nothing else; NULL: it is something else. */
static WeirDomainDisk *domain_read_was(const char *text)
{
    const char *before = "<domain><name>was</name><devices>";
    g_autofree char *whole = g_strconcat(before, text, "</devices></domain>",
                                         NULL);
    g_autoptr(WeirDomain) domain = weir_domain_parse(whole, strlen(whole),
                                                     NULL);
    const WeirDomainDisk *disk = domain && domain->disks->len == 1
        ? g_ptr_array_index(domain->disks, 0) : NULL;

    if (!disk || disk->element.open.begin != strlen(before) ||
        disk->element.close.end != strlen(before) + strlen(text)) {
        return NULL;
    }
    return g_ptr_array_steal_index(domain->disks, 0);
}

/* The disks that were replaced. */
static bool domain_read_was_disks(WeirDomain *domain, const xmlNode *original,
                                  GError **error)
{
    for (xmlNode *node = node_next(original, NULL, "was", WEIR_DOMAIN_URI);
         node; node = node_next(original, node, "was", WEIR_DOMAIN_URI)) {
        WeirDomainWas *was;

        if (!domain_has_room(domain->was_disks, error)) {
            return false;
        }
        was = g_new0(WeirDomainWas, 1);
        g_ptr_array_add(domain->was_disks, was);
        was->text = node_attribute(node, "disk");
        was->disk = was->text ? domain_read_was(was->text) : NULL;
        if (!was->disk || !was->disk->target) {
            weir_set_error(error, "domain XML: line %ld: found something else "
                           "in <original> than weir transform leaves there",
                           xmlGetLineNo(node));
            return false;
        }
    }
    return true;
}

static bool domain_read_original(WeirDomain *domain, const xmlNode *policies,
                                 GError **error)
{
    g_autofree char *added = NULL;
    g_autofree char *memory = NULL;
    xmlNode *node;

    if (!node_only(policies, "original", WEIR_DOMAIN_URI, &node,
                   &domain->original, error)) {
        return false;
    }
    domain->was_emulator = node_attribute(node, "emulator");
    domain->was_metadata = node_attribute(node, "metadata");
    added = node_attribute(node, "policies");
    domain->added_policies = g_strcmp0(added, "none") == 0;
    memory = node_attribute(node, "memory");
    domain->added_memory = g_strcmp0(memory, "none") == 0;
    return domain_read_was_disks(domain, node, error);
}

static bool domain_read_policies(WeirDomain *domain, const xmlNode *root,
                                 GError **error)
{
    xmlNode *metadata;
    xmlNode *policies;

    if (!node_only(root, "metadata", NULL, &metadata, &domain->metadata,
                   error) ||
        !node_only(metadata, "policies", WEIR_DOMAIN_URI, &policies,
                   &domain->policies, error)) {
        return false;
    }
    if (!policies) {
        return true;
    }
    domain->prefix = policies->ns->prefix
                         ? g_strconcat((const char *)policies->ns->prefix,
                                       ":", NULL) : g_strdup("");
    for (xmlNode *node = node_next(policies, NULL, "disk", WEIR_DOMAIN_URI);
         node; node = node_next(policies, node, "disk", WEIR_DOMAIN_URI)) {
        if (!domain_has_room(domain->assigned, error) ||
            !domain_read_assigned(domain, node, error)) {
            return false;
        }
    }
    return domain_read_original(domain, policies, error);
}

/* "+107:+107", as libvirt tells whom QEMU runs as. */
static void domain_read_owner(WeirDomain *domain, const xmlNode *root)
{
    for (xmlNode *node = node_child(root, "seclabel"); node;
         node = node_next(root, node, "seclabel", NULL)) {
        g_autofree char *model = node_attribute(node, "model");
        g_autofree char *label = node_text(node_child(node, "label"));
        unsigned uid;
        unsigned gid;

        if (g_strcmp0(model, "dac") == 0 && label &&
            sscanf(label, "+%u:+%u", &uid, &gid) == 2) {
            domain->uid = uid;
            domain->gid = gid;
        }
    }
}

static bool domain_read_memory(WeirDomain *domain, const xmlNode *root,
                               GError **error)
{
    g_autofree char *mode = NULL;
    xmlNode *node;

    if (!node_only(root, "memoryBacking", NULL, &node, &domain->memory,
                   error)) {
        return false;
    }
    mode = node_attribute(node_child(node, "access"), "mode");
    domain->memory_shared = g_strcmp0(mode, "shared") == 0;
    return true;
}

static bool domain_read(WeirDomain *domain, const xmlNode *root,
                        GError **error)
{
    xmlNode *name;
    xmlNode *uuid;

    if (!root || !node_is(root, "domain", NULL)) {
        weir_set_error(error, "domain XML: found <%s>, expected <domain>",
                       root ? (const char *)root->name : "");
        return false;
    }
    domain->type = node_attribute(root, "type");
    if (!node_only(root, "name", NULL, &name, &domain->name_element, error) ||
        !node_only(root, "uuid", NULL, &uuid, NULL, error) ||
        !domain_read_devices(domain, root, error) ||
        !domain_read_memory(domain, root, error) ||
        !domain_read_policies(domain, root, error)) {
        return false;
    }
    domain->name = node_text(name);
    domain->uuid = node_text(uuid);
    domain->arch = node_attribute(node_child(node_child(root, "os"), "type"),
                                  "arch");
    domain_read_owner(domain, root);
    if (!domain->name) {
        weir_set_error(error, "domain XML: found no <name>");
        return false;
    }
    return true;
}

WeirDomain *weir_domain_parse(const char *text, gsize length, GError **error)
{
    Parser parser = {
        .text = text, .length = length,
        .elements = g_ptr_array_new_with_free_func(g_free),
    };
    g_autoptr(WeirDomain) domain = domain_new(text, length);
    xmlDocPtr doc = parser_run(&parser, error);
    bool ok = doc && domain_read(domain, xmlDocGetRootElement(doc), error);

    xmlFreeDoc(doc);
    g_ptr_array_unref(parser.elements);
    g_free(parser.refused);
    return ok ? g_steal_pointer(&domain) : NULL;
}
