# SteerLM on a fleet of ordinary CPUs. `make help` lists the targets.
# One file, not recursive: sources by room, flags by mode, every mode in its own folder build/<mode>.

MODE ?= release
B := build/$(MODE)
GEN := build/gen
CC := gcc
PROTOC_C ?= protoc-c

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wdouble-promotion -Wstrict-prototypes \
        -Wmissing-prototypes -Wvla -Wwrite-strings -Wformat=2 -Werror
# No fast-math anywhere: NaN stays visible and sums keep their order. -ffp-contract=off: an fma is one that we wrote.
MATH := -ffp-contract=off -fno-math-errno -fno-trapping-math
CFLAGS_release := -O2 -g
CFLAGS_asan := -O1 -g -fsanitize=address -fno-omit-frame-pointer
CFLAGS_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -g -fsanitize=thread
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
CPPFLAGS := -D_GNU_SOURCE -DSTEER_VERSION='"$(VERSION)"' -Icommon -I. -I$(GEN)
CFLAGS := -std=c11 -pthread -fPIE $(WARN) $(MATH) $(CFLAGS_$(MODE))
LDFLAGS := -pthread -pie $(filter -fsanitize=%,$(CFLAGS_$(MODE)))
# The numerics want vectors: AVX2 and FMA (x86-64-v3) on x86, whatever the compiler targets elsewhere.
ARCH := $(shell uname -m)
VEC_x86_64 := -march=x86-64-v3
VEC := -O3 $(VEC_$(ARCH))

ROOMS := base json types model data modelfile eval ps wire net store artifact
PROTOS := $(wildcard proto/*.proto)
GENS := $(PROTOS:proto/%.proto=$(GEN)/%.pb-c.c)

room_src = $(sort $(wildcard common/$(1)/*.c))
room_obj = $(patsubst %.c,$(B)/%.o,$(call room_src,$(1)))
JOBS_RUN_SRC := $(sort $(wildcard jobs/run*.c))
JOBS_SRC := $(filter-out $(JOBS_RUN_SRC),$(sort $(wildcard jobs/*.c)))

LIBS := $(foreach r,$(ROOMS),$(B)/lib$(r).a) $(B)/libproto.a $(B)/libjobs.a $(B)/libjobsrun.a
# Order for static linking: users first.
lib = $(foreach r,$(1),$(B)/lib$(r).a)
L_coordinator := $(call lib,jobs store wire proto net modelfile data model types json base)
L_worker := $(call lib,jobsrun jobs ps eval artifact store wire proto net modelfile data model types json base)
L_steerctl := $(call lib,jobs modelfile data model artifact store types json base)
X_base := -lsodium -lm
X_data := -lcjson -lpcre2-8 -lutf8proc -lz -lzstd
X_coordinator := -lzmq -lprotobuf-c -lsqlite3 -lmicrohttpd -lxxhash -lyaml $(X_data) $(X_base)
X_worker := -lzmq -lprotobuf-c -lcurl -lopenblas -lxxhash -lyaml $(X_data) $(X_base)
X_steerctl := -lcurl -lyaml $(X_data) $(X_base)
X_all := -lzmq -lprotobuf-c -lsqlite3 -lmicrohttpd -lcurl -lopenblas -lxxhash -lyaml $(X_data) $(X_base)

bin_obj = $(patsubst %.c,$(B)/%.o,$(sort $(wildcard $(1)/*.c)))
BINS := $(B)/bin/steer-coordinator $(B)/bin/steer-worker $(B)/bin/steerctl

.PHONY: all help
all: $(BINS) ## build the three programs (MODE=release|asan|ubsan|tsan)

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sort | sed -E 's/:[^#]*## /\t/' | \
	  awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

# ---- compiling -------------------------------------------------------------------------------------------------
$(GEN)/%.pb-c.c $(GEN)/%.pb-c.h: proto/%.proto
	@mkdir -p $(GEN)
	@cd proto && $(PROTOC_C) --c_out=../$(GEN) $(notdir $<)

$(B)/common/model/%.o: common/model/%.c
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(VEC) -MMD -MP -c $< -o $@
# The same numerics in double: what the gradient checks differentiate.
$(B)/double/model/%.o: common/model/%.c
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(VEC) -DREAL_DOUBLE -MMD -MP -c $< -o $@
# Tests of the numerics see the same vectors as the numerics.
$(B)/tests/unit/model/%.o: tests/unit/model/%.c
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(VEC) -MMD -MP -c $< -o $@
# Folding is adding and hashing long rows of floats.
$(call room_obj,ps): CFLAGS += $(VEC)
$(call room_obj,wire): | $(GENS:.c=.h)
.SECONDARY: $(GENS)
$(B)/gen/%.o: $(GEN)/%.c
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) -w -MMD -MP -c $< -o $@
$(B)/%.o: %.c
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@
# What says its version is compiled again when the version changes: results are kept, and resumed, by it.
$(B)/version: FORCE
	@mkdir -p $(@D)
	@echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' >$@
.PHONY: FORCE
$(patsubst %.c,$(B)/%.o,$(shell git grep -l STEER_VERSION -- '*.c' 2>/dev/null)): $(B)/version

define room_rule
$(B)/lib$(1).a: $(call room_obj,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	@ar rcs $$@ $$^
endef
$(foreach r,$(ROOMS),$(eval $(call room_rule,$(r))))
$(B)/libproto.a: $(GENS:$(GEN)/%.c=$(B)/gen/%.o)
	@rm -f $@; ar rcs $@ $^
$(B)/libjobs.a: $(JOBS_SRC:%.c=$(B)/%.o)
	@rm -f $@; ar rcs $@ $^
$(B)/libjobsrun.a: $(JOBS_RUN_SRC:%.c=$(B)/%.o)
	@rm -f $@; ar rcs $@ $^
$(B)/libmodel_double.a: $(patsubst common/model/%.c,$(B)/double/model/%.o,$(call room_src,model))
	@rm -f $@; ar rcs $@ $^

$(B)/bin/steer-coordinator: $(call bin_obj,coordinator) $(L_coordinator)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) $(filter %.o,$^) $(L_coordinator) $(X_coordinator) -o $@
$(B)/bin/steer-worker: $(call bin_obj,worker) $(L_worker)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) $(filter %.o,$^) $(L_worker) $(X_worker) -o $@
$(B)/bin/steerctl: $(call bin_obj,steerctl) $(L_steerctl)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) $(filter %.o,$^) $(L_steerctl) $(X_steerctl) -o $@

# ---- tests -----------------------------------------------------------------------------------------------------
# tests/unit/<room>/test_*.c (cmocka) link everything but main()s; tests/unit/*/grad_*.c link the double build of the numerics.
# Daemon rooms: their *_main.c is left out.
DAEMON_OBJ := $(filter-out %_main.o,$(call bin_obj,coordinator) $(call bin_obj,worker) $(call bin_obj,steerctl))
UNIT_SRC := $(sort $(wildcard tests/unit/*/test_*.c tests/golden/test_*.c))
GRAD_SRC := $(sort $(wildcard tests/unit/*/grad_*.c))
UNIT_BIN := $(UNIT_SRC:%.c=$(B)/%)
GRAD_BIN := $(GRAD_SRC:%.c=$(B)/%)
SIM_BIN := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/sim/test_*.c)))
BENCH_BIN := $(patsubst %.c,$(B)/%,$(filter-out %/bench_common.c,$(sort $(wildcard tests/bench/bench_*.c))))
DUMP_BIN := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/golden/dump_*.c)))
L_all := -Wl,--start-group $(LIBS) -Wl,--end-group

$(B)/libdaemon.a: $(DAEMON_OBJ)
	@rm -f $@; ar rcs $@ $^
$(BENCH_BIN): $(B)/tests/bench/bench_common.o
$(addprefix $(B)/tests/unit/worker/,test_session test_handover test_ps_view): $(B)/tests/unit/worker/session_cluster.o
$(B)/tests/sim/test_sched: $(addprefix $(B)/tests/sim/,fake_cluster.o fake_coordinator.o)
$(UNIT_BIN) $(SIM_BIN) $(BENCH_BIN) $(DUMP_BIN): $(B)/%: $(B)/%.o $(LIBS) $(B)/libdaemon.a
	@$(CC) $(LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(B)/libdaemon.a $(LIBS) -Wl,--end-group $(X_all) -lcmocka -o $@
# The simulator is the real daemons with other edges: what tests/sim/sim_*.c defines by WRAP() takes the place of clocks,
# threads, sockets, disks and arithmetic.
SIM_SRC := $(sort $(wildcard tests/sim/sim_*.c)) tests/sim/steer_sim.c
SIM_WRAP := $(shell sed -n 's/^WRAP.[^,]*, \([a-z_0-9]*\),.*/-Wl,--wrap=\1/p' $(SIM_SRC))
$(SIM_SRC:%.c=$(B)/%.o): CFLAGS += $(VEC)
# It is malloc() and calloc() itself: the compiler must not make the one of the other.
$(B)/tests/sim/sim_heap.o: CFLAGS += -fno-builtin
$(B)/tests/sim/steer_sim: $(SIM_SRC:%.c=$(B)/%.o) $(LIBS) $(B)/libdaemon.a
	@$(CC) $(LDFLAGS) $(SIM_WRAP) $(filter %.o,$^) -Wl,--start-group $(B)/libdaemon.a $(LIBS) -Wl,--end-group $(X_all) -o $@
# Training again in one straight loop: what tests/system compares a distributed run with.
$(B)/tests/lib/ref_train: $(B)/tests/lib/ref_train.o $(LIBS)
	@$(CC) $(LDFLAGS) $< -Wl,--start-group $(LIBS) -Wl,--end-group $(X_all) -o $@
$(GRAD_BIN:%=%.o): CPPFLAGS += -DREAL_DOUBLE
$(GRAD_BIN): $(B)/%: $(B)/%.o $(B)/libmodel_double.a $(call lib,types base)
	@$(CC) $(LDFLAGS) $< $(B)/libmodel_double.a $(call lib,types base) -lopenblas $(X_base) -lcmocka -o $@
$(B)/tests/lib/submitter: $(B)/tests/lib/submitter.o
	@$(CC) $(LDFLAGS) $< -lcurl -lpthread -o $@
TEST_TOOLS := $(B)/tests/lib/ref_train $(B)/tests/lib/submitter

.PHONY: unit sim sim-long system lint check smoke bench bench-peers fmt deps demo demo-full demo-stories install clean golden
unit: $(UNIT_BIN) $(GRAD_BIN) ## unit tests, gradient checks and golden values
	@tests/lib/run_tests.sh unit $(UNIT_BIN) $(GRAD_BIN)
sim: $(SIM_BIN) $(B)/tests/sim/steer_sim ## the daemons and their pure cores in a hostile, simulated cluster
	@STEER_SIM=$(B)/tests/sim/steer_sim tests/lib/run_tests.sh sim $(SIM_BIN) tests/sim/test_simulator.sh
sim-long: $(B)/tests/sim/steer_sim ## a million seeds of the simulator (SEEDS=N, STEER_RESULTS=FILE); goes on where it stopped
	@STEER_SIM=$(B)/tests/sim/steer_sim tests/sim/campaign.sh $(SEEDS)
system: all $(TEST_TOOLS) ## the real daemons on loopback
	@STEER_BIN=$(abspath $(B)/bin) tests/lib/run_tests.sh system $(sort $(wildcard tests/system/test_*.sh))
lint: ## include arrows, names, formatting habits
	@tests/lint/includes.sh
check: deps ## everything a change must pass
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@$(MAKE) --no-print-directory -j$$(nproc) check-built
.PHONY: check-built
check-built: all $(TEST_TOOLS) $(UNIT_BIN) $(GRAD_BIN) $(SIM_BIN) $(B)/tests/sim/steer_sim
	@MODE=$(MODE) STEER_TIMEOUT=1800 STEER_SIM=$(B)/tests/sim/steer_sim STEER_BIN=$(abspath $(B)/bin) tests/lib/run_tests.sh all lint:tests/lint/includes.sh \
	  $(UNIT_BIN) $(GRAD_BIN) $(SIM_BIN) tests/sim/test_simulator.sh $(sort $(wildcard tests/system/test_*.sh)) tests/chaos/test_chaos.sh tests/mutants/test_mutants.sh
.PHONY: mutants chaos chaos-short
chaos-short: all $(TEST_TOOLS) ## disturbed runs of the real daemons, one of each fault; CHAOS_RUNS=N for more
	@STEER_TIMEOUT=$$((600 + 30 * $(or $(CHAOS_RUNS),20))) STEER_BIN=$(abspath $(B)/bin) tests/lib/run_tests.sh chaos tests/chaos/test_chaos.sh
chaos: all $(TEST_TOOLS) $(UNIT_BIN) $(SIM_BIN) $(B)/tests/sim/steer_sim ## every long form (hours; goes on where it stopped) and docs/reliability.md
	@MODE=$(MODE) STEER_SIM=$(B)/tests/sim/steer_sim STEER_BIN=$(abspath $(B)/bin) tests/chaos/long.sh
mutants: all $(TEST_TOOLS) $(UNIT_BIN) $(SIM_BIN) $(B)/tests/sim/steer_sim ## take out one safeguard after the other: each time a test must fail (about 10 minutes)
	@MODE=$(MODE) tests/mutants/run.sh
fmt: ## format every C file
	@git ls-files '*.c' '*.h' | xargs clang-format -i
deps: ## install the Debian packages that building and testing need
	@deploy/deps.sh
demo: deps ## the whole loop on real data: packages, build, two workers, report (about 4 minutes)
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@STEER_BIN=$(abspath $(B)/bin) deploy/demo.sh jobs/specs/demo.yaml build/demo
demo-full: deps ## the long form: three seeds with controls, guidance strengths, bootstrap, ablation
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@STEER_BIN=$(abspath $(B)/bin) deploy/demo.sh jobs/specs/demo-full.yaml build/demo-full
demo-stories: deps ## the second demo: stories steered by length, richness, joy and dialogue
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@STEER_BIN=$(abspath $(B)/bin) deploy/demo.sh jobs/specs/stories.yaml build/demo-stories
smoke: all ## the whole loop on a small slice of the data, in about a minute
	@STEER_BIN=$(abspath $(B)/bin) deploy/demo.sh jobs/specs/smoke.yaml build/smoke
bench: all $(BENCH_BIN) ## speeds beside the peers that are installed, and docs/performance.md; on a quiet machine (QUESTIONS="decode plan": some)
	@STEER_BIN=$(abspath $(B)/bin) tests/bench/run $(QUESTIONS)
bench-peers: ## install what the benches are compared with into build/peers (PyTorch, llama.cpp, gearmand; slow; the product needs none)
	@tests/bench/peers.sh
golden: ## how the golden values were made (needs PyTorch from PyPI in a virtual environment of yours)
	@ls tests/golden/*.py
PREFIX ?= /usr/local
install: all ## programs, man pages, completion, systemd units under PREFIX (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(BINS) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(wildcard docs/*.1) $(DESTDIR)$(PREFIX)/share/man/man1
	$(B)/bin/steerctl completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/steerctl
	install -m 644 $(wildcard deploy/*.service) $(DESTDIR)$(PREFIX)/lib/systemd/system
clean: ## remove everything made
	@rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
