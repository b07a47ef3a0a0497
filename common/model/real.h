/* real: the scalar of all numerics. float in what ships; double in the gradient-check build of the same source. */
#ifndef MODEL_REAL_H
#define MODEL_REAL_H
#ifdef REAL_DOUBLE
typedef double real;
#else
typedef float real;
#endif
#endif
