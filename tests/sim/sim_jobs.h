/* sim_jobs: the kinds of jobs that clients submit: training, row phases, a pipeline of both. */
#ifndef SIM_JOBS_H
#define SIM_JOBS_H

#define SIM_JOBS 12
#define SIM_JOB_LIES_TRAIN 8 /* every gradient is audited, */
#define SIM_JOB_LIES_ROWS 11 /* every range of rows */
/* The body of POST /v1/jobs, its files put into the store. Kept until the program ends. */
const char *sim_jobs_body(int kind);
void sim_jobs_files(void); /* into the store of a new world */

#endif
