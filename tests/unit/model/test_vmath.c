/* Our polynomials against the C library's double functions, and their behaviour at the ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "model/vmath.h"

static double ulps(float got, double want)
{
    float next = nextafterf((float)fabs(want), INFINITY);

    return fabs((double)got - want) / ((double)next - (double)(float)fabs(want));
}

static void test_exp_sigmoid_within_two_ulp(void **state)
{
    (void)state;
    for (double x = -87.0; x < 88.3; x += 0.00217) {
        float f = (float)x;

        assert_true(ulps(vm_exp_one(f), exp((double)f)) <= 2.0);
        if (f > -80.0f)
            assert_true(ulps(vm_sigmoid(vm_set(f))[0], 1.0 / (1.0 + exp(-(double)f))) <= 3.0);
    }
}

static void test_log_within_two_ulp(void **state)
{
    (void)state;
    for (double x = -87.0; x < 88.0; x += 0.00319) {
        float f = (float)exp(x);

        assert_true(ulps(vm_log_one(f), log((double)f)) <= 2.0 ||
                    fabs((double)vm_log_one(f) - log((double)f)) < 1e-7);
    }
    assert_true(vm_log_one(1.0f) == 0.0f);
}

static void test_ends(void **state)
{
    (void)state;
    assert_true(vm_exp_one(-INFINITY) == 0.0f);
    assert_true(vm_exp_one(-1e30f) == 0.0f);
    assert_true(vm_exp_one(-87.5f) == 0.0f);
    assert_true(vm_exp_one(0.0f) == 1.0f);
    assert_true(isinf(vm_exp_one(88.5f)));
    assert_true(isinf(vm_exp_one(INFINITY)));
    assert_true(isnan(vm_exp_one(NAN)));
    assert_true(vm_sigmoid(vm_set(-INFINITY))[0] == 0.0f);
    assert_true(vm_sigmoid(vm_set(INFINITY))[0] == 1.0f);
    assert_true(isnan(vm_sigmoid(vm_set(NAN))[0]));
    assert_true(isnan(vm_log_one(NAN)));
    assert_true(isnan(vm_log_one(-1.0f)));
}

static void test_lanes(void **state)
{
    float x[VM_LANES + 3], y[VM_LANES];
    vreal v;

    (void)state;
    for (int i = 0; i < VM_LANES + 3; i++)
        x[i] = (float)(i * i) - 7.0f;
    v = vm_load(x);
    for (int i = 0; i < VM_LANES; i++)
        assert_true(vm_exp(v)[i] == vm_exp_one(x[i])); /* a lane does not know its neighbours */
    assert_true(vm_sum(v) == 84.0f);
    assert_true(vm_max_lane(v) == 42.0f && vm_max_lane(-v) == 7.0f);
    v = vm_load_part(x, 3, -1.0f);
    assert_true(v[2] == -3.0f && v[3] == -1.0f);
    for (int i = 0; i < VM_LANES; i++)
        y[i] = 5.0f;
    vm_store_part(y, 2, v);
    assert_true(y[1] == -6.0f && y[2] == 5.0f);
    assert_true(vm_fma(vm_set(0x1.000002p0f), vm_set(0x1.000002p0f), vm_set(-1.0f))[0] ==
                0x1.000001p-22f);
    assert_int_equal(vm_round(0), 0);
    assert_int_equal(vm_round(1), VM_LANES);
    assert_int_equal(vm_round(VM_LANES), VM_LANES);
}

static void test_double_functions(void **state)
{
    (void)state;
    for (double x = -690.0; x < 690.0; x += 0.0737) {
        double s, c, e = exp(x);

        assert_true(fabs(vmath_exp(x) - e) <= 1e-15 * e);
        assert_true(fabs(vmath_log(e) - log(e)) <= 5e-16 * fabs(log(e)));
        vmath_sincos(1000.0 * x, &s, &c);
        assert_true(fabs(s - sin(1000.0 * x)) <= 5e-16 && fabs(c - cos(1000.0 * x)) <= 5e-16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_sigmoid_within_two_ulp),
        cmocka_unit_test(test_log_within_two_ulp),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_double_functions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
