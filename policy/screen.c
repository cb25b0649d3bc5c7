/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* ECMA-48, and xterm's second screen. */
#define SCREEN_ENTER "\033[?1049h\033[?25l"
#define SCREEN_LEAVE "\033[?25h\033[?1049l"
#define SCREEN_HOME "\033[H"
#define SCREEN_END_LINE "\033[K"
#define SCREEN_END_SCREEN "\033[J"

/* A program has one terminal, and signal handlers need it. */
static struct termios screen_before;
static volatile sig_atomic_t screen_has_keys;
static volatile sig_atomic_t screen_is_open;

/* Both are called by signal handlers. */
static void screen_write(const char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t n = write(STDOUT_FILENO, text, left);

        if (n < 0 && errno != EINTR) {
            return;
        }
        text += MAX(n, 0);
        left -= (size_t)MAX(n, 0);
    }
}

void weir_screen_close(void)
{
    if (screen_is_open) {
        screen_is_open = false;
        screen_write(SCREEN_LEAVE);
        if (screen_has_keys) {
            tcsetattr(STDIN_FILENO, TCSANOW, &screen_before);
        }
    }
}

/* Keys come one at a time, and signals as before. */
static void screen_enter(void)
{
    struct termios keys = screen_before;

    if (screen_has_keys) {
        keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        keys.c_cc[VMIN] = 1;
        keys.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &keys);
    }
    screen_write(SCREEN_ENTER);
    screen_is_open = true;
}

/* --- signals --- */

static void screen_die(int number)
{
    weir_screen_close();
    raise(number);              /* the handler is gone, see SA_RESETHAND */
}

static void screen_stop(int number)
{
    int saved_errno = errno;

    (void)number;
    weir_screen_close();
    raise(SIGSTOP);
    screen_enter();             /* when it goes on */
    errno = saved_errno;
}

/* Only interrupts poll(). */
static void screen_resized(int number)
{
    (void)number;
}

static void screen_handle(int number, void (*handler)(int), int flags)
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
    struct sigaction before;

    /* What the parent has set to be ignored (nohup) stays so. */
    if (sigaction(number, NULL, &before) == 0 &&
        before.sa_handler != SIG_IGN) {
        sigaction(number, &action, NULL);
    }
}

void weir_screen_open(void)
{
    static const int deadly[] = {
        SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGFPE,
        SIGILL, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU,
    };

    screen_has_keys = tcgetattr(STDIN_FILENO, &screen_before) == 0;
    atexit(weir_screen_close);
    for (guint i = 0; i < G_N_ELEMENTS(deadly); i++) {
        screen_handle(deadly[i], screen_die,
                      (int)(SA_RESETHAND | SA_NODEFER));
    }
    screen_handle(SIGTSTP, screen_stop, 0);
    screen_handle(SIGWINCH, screen_resized, 0);
    screen_enter();
}

/* --- what is shown --- */

/* Append as much of a line as has @columns. */
static void screen_append(GString *out, const char *line, const char *end,
                          int columns)
{
    for (const char *p = line; p < end; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        columns -= g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
        if (columns < 0) {
            return;
        }
        g_string_append_unichar(out, c);
    }
}

void weir_screen_show(const char *text)
{
    g_autoptr(GString) out = g_string_new(SCREEN_HOME);
    struct winsize size = { .ws_row = 24, .ws_col = 80 };
    const char *end;
    guint row = 0;

    ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    for (; *text && row < size.ws_row; row++) {
        end = strchrnul(text, '\n');
        if (row > 0) {
            g_string_append(out, "\r\n");
        }
        g_string_append(out, SCREEN_END_LINE);
        screen_append(out, text, end, size.ws_col);
        text = *end ? end + 1 : end;
    }
    if (row > 0 && row < size.ws_row) {
        g_string_append(out, "\r\n" SCREEN_END_SCREEN);
    }
    screen_write(out->str);
}

char weir_screen_key(int fd, int timeout_ms)
{
    struct pollfd poll_fds[] = {
        { .fd = screen_has_keys ? STDIN_FILENO : -1, .events = POLLIN },
        { .fd = fd, .events = POLLIN },
    };
    char key = 0;

    if (poll(poll_fds, G_N_ELEMENTS(poll_fds), timeout_ms) <= 0 ||
        !poll_fds[0].revents) {
        return 0;
    }
    if (read(STDIN_FILENO, &key, 1) <= 0) {
        screen_has_keys = false;        /* hung up; SIGHUP may be ignored */
    }
    return key;
}
