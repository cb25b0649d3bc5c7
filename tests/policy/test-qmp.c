/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client against a peer of which each word is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <gio/gunixinputstream.h>
#include <gio/gunixoutputstream.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qmp.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"

#define NEGOTIATION "{\"execute\":\"qmp_capabilities\",\"id\":0}\r\n"

typedef struct Peer {
    WeirQmp *qmp;
    int fd;
} Peer;

static int set_up(void **state)
{
    Peer *peer = g_new0(Peer, 1);
    g_autoptr(GInputStream) input = NULL;
    g_autoptr(GOutputStream) output = NULL;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    input = g_unix_input_stream_new(dup(fds[0]), TRUE);
    output = g_unix_output_stream_new(fds[0], TRUE);
    peer->qmp = weir_qmp_new(input, output, "the peer");
    peer->fd = fds[1];
    *state = peer;
    return 0;
}

static int tear_down(void **state)
{
    Peer *peer = *state;

    weir_qmp_free(peer->qmp);
    if (peer->fd >= 0) {
        close(peer->fd);
    }
    g_free(peer);
    return 0;
}

static void say(Peer *peer, const char *text)
{
    assert_int_equal(write(peer->fd, text, strlen(text)), strlen(text));
}

static void hang_up(Peer *peer)
{
    close(peer->fd);
    peer->fd = -1;
}

static void fails(Peer *peer, WeirErrorCode code, const char *message)
{
    g_autoptr(GError) error = NULL;

    assert_null(weir_qmp_execute(peer->qmp, "x", NULL, 50, &error));
    assert_true(g_error_matches(error, WEIR_ERROR, (int)code));
    assert_string_equal(error->message, message);
}

static void test_negotiates(void **state)
{
    Peer *peer = *state;
    char sent[256];
    gssize n;

    say(peer, GREETING "{\"return\": {}, \"id\": 0}\r\n");
    assert_true(weir_qmp_negotiate(peer->qmp, 1000, NULL));
    n = read(peer->fd, sent, sizeof(sent));
    assert_int_equal(n, strlen(NEGOTIATION));
    assert_memory_equal(sent, NEGOTIATION, strlen(NEGOTIATION));
}

static void test_answers_and_events(void **state)
{
    Peer *peer = *state;
    g_autoptr(JsonNode) answer = NULL;
    JsonNode *event;

    say(peer, "{\"event\": \"A\", \"data\": {}}\n"
        "{\"return\": 7, \"id\": 99}\n"
        "{\"event\": \"B\"}\n{\"return\": [1], \"id\": 0}\n");
    answer = weir_qmp_execute(peer->qmp, "x", NULL, 1000, NULL);
    assert_int_equal(weir_json_length(weir_json_as_array(answer)), 1);
    assert_int_equal(weir_qmp_events(peer->qmp)->len, 2);
    event = g_ptr_array_index(weir_qmp_events(peer->qmp), 1);
    assert_string_equal(weir_json_string(weir_json_as_object(event), "event"),
                        "B");
}

static void test_error_is_the_peers(void **state)
{
    say(*state, "{\"id\": 0, \"error\": {\"class\": \"GenericError\", "
        "\"desc\": \"no\"}}\n");
    fails(*state, WEIR_ERROR_QMP, "no");
}

static void test_unknown_command(void **state)
{
    say(*state, "{\"id\": 0, \"error\": {\"class\": \"CommandNotFound\", "
        "\"desc\": \"no x\"}}\n");
    fails(*state, WEIR_ERROR_NO_COMMAND, "no x");
}

static void test_silence(void **state)
{
    say(*state, "{\"return\": {}, \"id\":");
    fails(*state, WEIR_ERROR_TIMEOUT, "the peer does not answer");
}

static void test_hang_up(void **state)
{
    hang_up(*state);
    fails(*state, WEIR_ERROR_CLOSED, "the peer has closed the connection");
}

static void test_garbage(void **state)
{
    say(*state, "hello\n");
    fails(*state, WEIR_ERROR_FAILED, "the peer does not speak QMP");
}

static void test_error_without_text(void **state)
{
    say(*state, "{\"id\": 0, \"error\": 1}\n");
    fails(*state, WEIR_ERROR_FAILED, "the peer does not speak QMP");
}

static void test_no_greeting(void **state)
{
    Peer *peer = *state;
    g_autoptr(GError) error = NULL;

    say(peer, "{\"return\": {}}\n");
    assert_false(weir_qmp_negotiate(peer->qmp, 1000, &error));
    assert_string_equal(error->message, "the peer does not speak QMP");
}

static void test_deep_nesting(void **state)
{
    g_autofree char *deep = g_strnfill(100000, '[');
    g_autofree char *line = g_strconcat(deep, "\n", NULL);

    say(*state, line);
    fails(*state, WEIR_ERROR_FAILED, "the peer does not speak QMP");
}

static void test_events_are_bounded(void **state)
{
    g_autoptr(GString) text = g_string_new(NULL);
    Peer *peer = *state;
    JsonNode *last;

    for (int i = 0; i < 1100; i++) {
        g_string_append_printf(text, "{\"event\": \"E%d\"}\n", i);
    }
    g_string_append(text, "{\"return\": {}, \"id\": 0}\n");
    say(peer, text->str);
    json_node_unref(weir_qmp_execute(peer->qmp, "x", NULL, 1000, NULL));
    assert_int_equal(weir_qmp_events(peer->qmp)->len, 1024);
    last = g_ptr_array_index(weir_qmp_events(peer->qmp), 1023);
    assert_string_equal(weir_json_string(weir_json_as_object(last), "event"),
                        "E1099");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_negotiates),
        TEST(test_answers_and_events),
        TEST(test_error_is_the_peers),
        TEST(test_unknown_command),
        TEST(test_silence),
        TEST(test_hang_up),
        TEST(test_garbage),
        TEST(test_error_without_text),
        TEST(test_no_greeting),
        TEST(test_deep_nesting),
        TEST(test_events_are_bounded),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
