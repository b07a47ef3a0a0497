#include "modelfile/modelsteer.h"

#include <stdio.h>
#include <string.h>

#define VERSION 1

static const char *const role_name[] = {
    [STEER_NONE] = "none", [STEER_ATTRIBUTE_MODEL] = "attribute-model", [STEER_POLICY] = "policy"};

int modelsteer_parse(const cJSON *j, struct steer_config *out, struct err *e)
{
    int64_t version;
    const char *role;
    int rc;

    *out = (struct steer_config){0};
    if ((rc = json_need_int(j, "version", VERSION, VERSION, &version, e)) != 0 ||
        (rc = json_need_string(j, "role", &role, e)) != 0)
        return rc;
    for (enum steer_role r = STEER_ATTRIBUTE_MODEL; r <= STEER_POLICY; r++)
        if (strcmp(role, role_name[r]) == 0)
            out->role = r;
    if (out->role == STEER_NONE)
        return err_set(e, ERR_INVALID, "role is \"%.64s\", must be attribute-model or policy",
                       role);
    return template_from_json(j, &out->template_config, e);
}

cJSON *modelsteer_make(const struct steer_config *s)
{
    cJSON *j;

    if (s->role == STEER_NONE)
        return NULL;
    j = template_to_json(&s->template_config);
    CHECK(j != NULL);
    cJSON_AddNumberToObject(j, "version", VERSION);
    cJSON_AddStringToObject(j, "role", role_name[s->role]);
    return j;
}

void modelsteer_labels(const struct steer_config *s, const struct dims *d, cJSON *config)
{
    cJSON *names, *ids;

    if (s->role != STEER_ATTRIBUTE_MODEL || d->head != HEAD_REGRESSION ||
        s->template_config.schema.attrs != d->head_out)
        return;
    names = cJSON_CreateObject();
    ids = cJSON_CreateObject();
    for (int i = 0; i < s->template_config.schema.attrs; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        cJSON_AddStringToObject(names, number, s->template_config.schema.attr[i].name);
        cJSON_AddNumberToObject(ids, s->template_config.schema.attr[i].name, i);
    }
    cJSON_DeleteItemFromObjectCaseSensitive(config, "id2label");
    cJSON_DeleteItemFromObjectCaseSensitive(config, "label2id");
    cJSON_AddItemToObject(config, "id2label", names);
    cJSON_AddItemToObject(config, "label2id", ids);
}
