#include "apigateway/feedback.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "testing/test.h"

static Vectron__V1__FeedbackItem item;
static Vectron__V1__FeedbackItem *items[1] = {&item};

static Vectron__V1__SubmitFeedbackRequest make_request(void)
{
    Vectron__V1__SubmitFeedbackRequest request = VECTRON__V1__SUBMIT_FEEDBACK_REQUEST__INIT;
    static char query[] = "what's \"up\"; DROP TABLE feedback";
    static char id[] = "p1";
    static char *ids[] = {id, id};
    vectron__v1__feedback_item__init(&item);
    item.result_id = id;
    item.relevance_score = 5;
    item.clicked = true;
    request.query = query;
    request.n_feedback_items = 1;
    request.feedback_items = items;
    request.n_result_ids = 2;
    request.result_ids = ids;
    return request;
}

static int count_of(const char *path, const char *sql)
{
    sqlite3 *database = NULL;
    sqlite3_stmt *statement = NULL;
    int count = -1;
    if (sqlite3_open(path, &database) == SQLITE_OK &&
        sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        count = sqlite3_column_int(statement, 0);
    (void)sqlite3_finalize(statement);
    (void)sqlite3_close(database);
    return count;
}

TEST(checked)
{
    struct error error;
    Vectron__V1__SubmitFeedbackRequest request = make_request();
    CHECK_OK(feedback_check(&request, &error));
    for (int32_t score = -1; score <= 6; score++) {
        item.relevance_score = score;
        bool is_fine = score >= 0 && score <= 5;
        CHECK_STATUS(feedback_check(&request, &error), is_fine ? STATUS_OK : STATUS_INVALID);
    }
    CHECK_CONTAINS(str_from_cstr(error.text), STR("feedback_items[0]: relevance_score is 6"));
    request.n_feedback_items = 0;
    CHECK_STATUS(feedback_check(&request, &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("feedback_items"));
}

TEST(stored_in_a_folder_that_is_made)
{
    char path[512];
    char id[FEEDBACK_ID_SIZE + 1];
    char second_id[FEEDBACK_ID_SIZE + 1];
    struct error error = {0};
    (void)snprintf(path, sizeof(path), "%s/a/b/feedback.db", test_temporary_folder());
    Vectron__V1__SubmitFeedbackRequest request = make_request();
    struct feedback_origin origin = {STR("user"), STR("collection"), 1234};
    struct feedback *feedback = feedback_create(str_from_cstr(path));
    CHECK_OK(feedback_store(feedback, &origin, &request, &error, id));
    CHECK_OK(feedback_store(feedback, &origin, &request, &error, second_id));
    CHECK(strlen(id) == FEEDBACK_ID_SIZE && strcmp(id, second_id) != 0);
    feedback_destroy(feedback);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback WHERE created_at = 1234"), 2);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback_item WHERE relevance = 5"), 2);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback_result"), 4);
    // It goes on with what is there.
    feedback = feedback_create(str_from_cstr(path));
    CHECK_OK(feedback_store(feedback, &origin, &request, &error, id));
    feedback_destroy(feedback);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback"), 3);
}

TEST(a_place_that_cannot_be_written)
{
    char id[FEEDBACK_ID_SIZE + 1];
    struct error error = {0};
    Vectron__V1__SubmitFeedbackRequest request = make_request();
    struct feedback_origin origin = {STR("user"), STR("collection"), 1234};
    struct feedback *feedback = feedback_create(STR("/proc/no/such/feedback.db"));
    CHECK_STATUS(feedback_store(feedback, &origin, &request, &error, id), STATUS_IO);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("/proc/no"));
    feedback_destroy(feedback);
}

static enum status store_of(struct feedback *feedback, const char *user_id, struct error *error)
{
    char id[FEEDBACK_ID_SIZE + 1];
    Vectron__V1__SubmitFeedbackRequest request = make_request();
    Vectron__V1__SubmitFeedbackRequest__ContextEntry entry =
        VECTRON__V1__SUBMIT_FEEDBACK_REQUEST__CONTEXT_ENTRY__INIT;
    Vectron__V1__SubmitFeedbackRequest__ContextEntry *entries[] = {&entry};
    static char name[] = "name";
    entry.key = name;
    entry.value = name;
    request.context = entries;
    request.n_context = 1;
    return feedback_store(feedback, &(struct feedback_origin){str_from_cstr(user_id), STR("c"), 1},
                          &request, error, id);
}

TEST(a_user_is_forgotten)
{
    char path[700];
    struct error error = {0};
    struct feedback_users users = {.count = 9};
    struct arena *arena = arena_create(1 << 20);
    (void)snprintf(path, sizeof(path), "%s/feedback.db", test_temporary_folder());
    struct feedback *feedback = feedback_create(str_from_cstr(path));
    // Where nobody said anything no file is made.
    CHECK_OK(feedback_list_users(feedback, STR(""), arena, &error, &users));
    CHECK_EQ_U64(users.count, 0);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback"), -1);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(store_of(feedback, "a", &error));
        CHECK_OK(store_of(feedback, "b", &error));
        CHECK_OK(store_of(feedback, "c", &error));
    }
    CHECK_OK(feedback_list_users(feedback, STR(""), arena, &error, &users));
    CHECK(users.count == 3 && str_equal_cstr(users.ids[0], "a") &&
          str_equal_cstr(users.ids[1], "b"));
    CHECK_OK(feedback_list_users(feedback, STR("b"), arena, &error, &users));
    CHECK(users.count == 1 && str_equal_cstr(users.ids[0], "c"));
    CHECK_OK(feedback_forget_user(feedback, STR("b"), &error));
    CHECK_OK(feedback_forget_user(feedback, STR("nobody"), &error));
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback WHERE user_id = 'b'"), 0);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback"), 4);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback_item"), 4);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback_result"), 8);
    CHECK_EQ_I64(count_of(path, "SELECT count(*) FROM feedback_context"), 4);
    feedback_destroy(feedback);
    arena_destroy(arena);
}

TEST_MAIN()
