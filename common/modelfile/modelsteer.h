/* modelsteer: steer_config.json, what a model was taught to read or to say. */
#ifndef MODELFILE_MODELSTEER_H
#define MODELFILE_MODELSTEER_H

#include "modelfile/modeldir.h"

int modelsteer_parse(const cJSON *j, struct steer_config *out, struct err *e);
cJSON *modelsteer_make(const struct steer_config *s); /* NULL for STEER_NONE; cJSON_Delete */
/* A regression model's outputs are its attributes: names them in config.json's id2label, label2id.
 */
void modelsteer_labels(const struct steer_config *s, const struct dims *d, cJSON *config);

#endif
