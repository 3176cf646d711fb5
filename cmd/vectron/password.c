#include "vectron/password.h"

#include <stdio.h>
#include <termios.h>
#include <unistd.h>

enum { PASSWORD_SIZE_MAX = 1024 };

// Ask on the terminal without showing what is typed.
static enum status ask(struct session *session, struct str *out_password)
{
    struct termios shown;
    char line[PASSWORD_SIZE_MAX];
    if (isatty(STDIN_FILENO) != 1 || tcgetattr(STDIN_FILENO, &shown) != 0)
        return error_set(&session->error, STATUS_INVALID,
                         "no terminal to ask for the password: use --password-file");
    struct termios hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    fputs("password: ", stderr);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden); // at worst the password is shown
    char *typed = fgets(line, sizeof(line), stdin);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    fputs("\n", stderr);
    if (typed == NULL)
        return error_set(&session->error, STATUS_INVALID, "no password was given");
    struct str rest = str_from_cstr(line);
    *out_password = arena_str(session->arena, str_cut(&rest, '\n'));
    return STATUS_OK;
}

enum status password_read(struct session *session, struct str *out_password)
{
    struct str text = {0};
    struct str file = config_str(session->config, "password-file");
    if (file.len == 0)
        return ask(session, out_password);
    TRY(session_read_file(session, file, PASSWORD_SIZE_MAX, &text));
    *out_password = str_cut(&text, '\n');
    return STATUS_OK;
}
