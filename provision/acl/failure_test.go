package acl

import (
	"context"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// stop returns n additions to the stopped set.
func stop(n int) []access.Change {
	out := make([]access.Change, n)
	for i := range out {
		out[i] = access.Change{Op: provision.OpAdd, Element: access.Element{Set: access.SetStopped, Key: string([]byte{100, 64, byte(i >> 8), byte(i)})}}
	}
	return out
}

func requireStopped(t *testing.T, k *fakeKernel, table *Table, n int) {
	t.Helper()
	require.Len(t, k.table.sets["stopped"].keys, n, "in the kernel")
	k.onDump = nil
	have, err := table.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, n, have.Counts()[access.SetStopped])
}

func TestOpenMakesTheTableOnce(t *testing.T) {
	k := &fakeKernel{}
	first := openFake(t, k)
	require.Equal(t, 1, k.batches)
	require.NoError(t, first.Apply(t.Context(), stop(3)))
	require.NoError(t, first.Close())
	second, err := open(t.Context(), k.handle())
	require.NoError(t, err)
	require.Equal(t, 2, k.batches, "the second Open wrote")
	requireStopped(t, k, second, 3)
	changed, err := second.Changed(t.Context())
	require.NoError(t, err)
	require.False(t, changed)
}

// What is in the sets is read once at a start, by the first Observe; of a kernel that does not count them also before.
func TestOpenReadsNoElements(t *testing.T) {
	for _, noCount := range []bool{false, true} {
		k := &fakeKernel{noCount: noCount}
		first := openFake(t, k)
		require.NoError(t, first.Apply(t.Context(), stop(3)))
		require.NoError(t, first.Close())
		before := k.dumps
		second, err := open(t.Context(), k.handle())
		require.NoError(t, err)
		if !noCount {
			require.Equal(t, before, k.dumps)
		}
		changed, err := second.Changed(t.Context())
		require.NoError(t, err)
		require.True(t, changed, "nobody has seen them yet")
		requireStopped(t, k, second, 3)
		require.NoError(t, second.Apply(t.Context(), stop(5)))
		requireStopped(t, k, second, 5)
		require.Zero(t, second.Repairs())
	}
}

// What became of a batch is not always known at once.
func TestApplyOutcomes(t *testing.T) {
	const n = 2500
	tests := []struct {
		name    string
		kernel  fakeKernel
		batches int // of this Apply
		err     error
		changed bool // the next Changed
	}{
		{name: "all is well", batches: 1},
		{name: "older kernel without a count", kernel: fakeKernel{noCount: true}, batches: 1, changed: true},
		{name: "committed, replies lost", batches: 1, changed: true,
			kernel: fakeKernel{onBatch: func(i int) (bool, unix.Errno) { return true, lostAt(i, 2) }}},
		{name: "not committed, replies lost", batches: 2, changed: true,
			kernel: fakeKernel{onBatch: func(i int) (bool, unix.Errno) { return i != 2, lostAt(i, 2) }}},
		{name: "elements lost in silence", batches: 2, changed: true,
			kernel: fakeKernel{onAdd: func() func([]uint32) []uint32 {
				calls := 0
				return func(keys []uint32) []uint32 {
					if calls++; calls == 2 {
						return keys[:10]
					}
					return keys
				}
			}()}},
		{name: "not permitted", batches: 1, err: unix.EPERM,
			kernel: fakeKernel{onBatch: func(i int) (bool, unix.Errno) {
				if i >= 2 {
					return false, unix.EPERM
				}
				return true, 0
			}}},
		{name: "nothing ever gets through", batches: attempts, err: unix.ENOBUFS, changed: true,
			kernel: fakeKernel{onBatch: func(i int) (bool, unix.Errno) {
				if i >= 2 {
					return false, unix.ENOBUFS
				}
				return true, 0
			}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &tt.kernel
			table := openFake(t, k)
			_, err := table.Observe(t.Context())
			require.NoError(t, err)
			before := k.batches
			err = table.Apply(t.Context(), stop(n))
			require.Equal(t, tt.batches, k.batches-before)
			require.ErrorIs(t, err, tt.err)
			changed, e := table.Changed(t.Context())
			require.NoError(t, e)
			require.Equal(t, tt.changed, changed)
			if tt.err != nil {
				require.ErrorContains(t, err, "acl: apply 2500 of 2500 changes: commit batch: ")
				requireStopped(t, k, table, 0)
				return
			}
			requireStopped(t, k, table, n)
		})
	}
}

func lostAt(i, at int) unix.Errno {
	if i == at {
		return unix.ENOBUFS
	}
	return 0
}

// A batch carries the generation that it rests on: who wrote meanwhile makes the
// kernel refuse it, and what is still missing is sent after a reading.
func TestApplyAfterAForeignWrite(t *testing.T) { synctest.Test(t, testApplyAfterAForeignWrite) }

func testApplyAfterAForeignWrite(t *testing.T) {
	k := &fakeKernel{}
	table := openFake(t, k)
	_, err := table.Observe(t.Context())
	require.NoError(t, err)
	before := k.batches
	k.table.sets["stopped"].keys[0x64400000] = true // the first of what is to be added
	k.table.sets["paused"].keys[7] = true
	k.gen++
	require.NoError(t, table.Apply(t.Context(), stop(3)))
	require.Equal(t, 2, k.batches-before, "refused, and sent again")
	changed, err := table.Changed(t.Context())
	require.NoError(t, err)
	require.True(t, changed, "the element that is not ours is still to be seen")
	have, err := table.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, have.Counts()[access.SetStopped])
	require.Equal(t, 1, have.Counts()[access.SetPaused])

	// Somebody who writes faster than we read does not keep us from blocking.
	before = k.batches
	k.onDump = func(_ int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
		k.gen++
		return keys, 0
	}
	k.gen++
	require.NoError(t, table.Apply(t.Context(), stop(9)))
	require.Equal(t, 1+attempts/2, k.batches-before)
	require.Len(t, k.table.sets["stopped"].keys, 9)
}

// A small batch on an older kernel is believed without a reading of the set.
func TestApplyOfFewReadsNothingBack(t *testing.T) {
	for _, noCount := range []bool{false, true} {
		k := &fakeKernel{noCount: noCount}
		table := openFake(t, k)
		_, err := table.Observe(t.Context())
		require.NoError(t, err)
		before := k.dumps
		require.NoError(t, table.Apply(t.Context(), stop(chunk)))
		require.Equal(t, before, k.dumps)
		changed, err := table.Changed(t.Context())
		require.NoError(t, err)
		require.False(t, changed)
		requireStopped(t, k, table, chunk)
	}
}

func TestObserveReadsAgain(t *testing.T) {
	const n = 2000
	// A rehash in the middle of a dump: some elements twice, as many not at all.
	reorder := func(keys []uint32) []uint32 {
		if len(keys) == 0 {
			return keys
		}
		return append(keys[:len(keys)-100:len(keys)-100], keys[:100]...)
	}
	type spoil func(k *fakeKernel, i int, keys []uint32) ([]uint32, netlink.HeaderFlags)
	tests := []struct {
		name    string
		noCount bool
		spoil   spoil
		dumps   int // 0: any
		err     error
		changed bool
	}{
		{name: "quiet", dumps: 2, spoil: func(_ *fakeKernel, _ int, keys []uint32) ([]uint32, netlink.HeaderFlags) { return keys, 0 }},
		{name: "said to be interrupted", dumps: 3, spoil: func(_ *fakeKernel, i int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
			if i == 1 {
				return keys, netlink.DumpInterrupted
			}
			return keys, 0
		}},
		{name: "reordered in silence", dumps: 3, spoil: func(_ *fakeKernel, i int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
			if i == 1 {
				return reorder(keys), 0
			}
			return keys, 0
		}},
		{name: "reordered in silence, no count", noCount: true, dumps: 3, spoil: func(_ *fakeKernel, i int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
			if i == 1 {
				return reorder(keys), 0
			}
			return keys, 0
		}},
		{name: "some missing", dumps: 3, spoil: func(_ *fakeKernel, i int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
			if i == 1 {
				return keys[7:], 0
			}
			return keys, 0
		}},
		{name: "somebody wrote meanwhile", dumps: 4, spoil: func(k *fakeKernel, i int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
			if i == 1 {
				k.gen++
			}
			return keys, 0
		}},
		{name: "somebody writes all the time", changed: true, spoil: func(k *fakeKernel, _ int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
			k.gen++
			return keys, 0
		}},
		{name: "never in order", err: errInconsistent, changed: true, spoil: func(_ *fakeKernel, _ int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
			return reorder(keys), 0
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // for the pauses between readings
				k := &fakeKernel{noCount: tt.noCount}
				table := openFake(t, k)
				_, err := table.Observe(t.Context())
				require.NoError(t, err)
				require.NoError(t, table.Apply(t.Context(), stop(n)))

				k.dumps = 0
				k.onDump = func(i int, keys []uint32) ([]uint32, netlink.HeaderFlags) { return tt.spoil(k, i, keys) }
				if tt.err != nil {
					k.gen++ // so that there is something to find
				}
				have, err := table.Observe(t.Context())
				require.ErrorIs(t, err, tt.err)
				if tt.dumps > 0 {
					require.Equal(t, tt.dumps, k.dumps)
				}
				if tt.err == nil {
					require.Equal(t, n, have.Counts()[access.SetStopped])
				} else {
					require.Zero(t, have.Counts()[access.SetStopped], "half a reading must not be used")
				}
				changed, err := table.Changed(t.Context())
				require.NoError(t, err)
				require.Equal(t, tt.changed, changed)
			})
		})
	}
}

// Somebody writes between our reading of an old table and the batch that
// replaces it: the batch is refused, and the second one has the new element.
func TestRebuildLosesNoElementWrittenMeanwhile(t *testing.T) {
	k := &fakeKernel{}
	table := openFake(t, k)
	require.NoError(t, table.Apply(t.Context(), stop(1)))
	k.table.rules = k.table.rules[1:]
	k.gen++
	k.dumps = 0
	k.onDump = func(i int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
		if i == 1 {
			k.table.sets["stopped"].keys[0x64400063] = true
			k.gen++
		}
		return keys, 0
	}
	have, err := table.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, have.Counts()[access.SetStopped])
	require.Len(t, k.table.rules, len(ruleset.Rules(ruleset.Policy{})))
	requireStopped(t, k, table, 2)
}

func TestTheContextEndsTheRepetitions(t *testing.T) {
	k := &fakeKernel{}
	table := openFake(t, k)
	require.NoError(t, table.Apply(t.Context(), stop(10)))
	ctx, cancel := context.WithCancel(t.Context())
	k.onDump = func(_ int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
		cancel()
		return keys, netlink.DumpInterrupted
	}
	_, err := table.Observe(ctx)
	require.ErrorIs(t, err, context.Canceled)
	requireStopped(t, k, table, 10)
}

// A long reading keeps nobody waiting who asks for what is known: the status, and the watchdog by it.
func TestWhatIsKnownIsToldDuringAReading(t *testing.T) {
	k := &fakeKernel{}
	table := openFake(t, k)
	_, err := table.Observe(t.Context())
	require.NoError(t, err)
	table.mu.Lock()
	table.setOpenLocked(time.Hour) // as it was found; the next reading finds none
	table.release()
	until := table.OpenUntil()
	require.NotZero(t, until)
	gen := table.Generation()
	asked := 0
	k.onDump = func(_ int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
		asked++
		told := make(chan struct{})
		go func() {
			defer close(told)
			assert.Equal(t, until, table.OpenUntil())
			assert.Empty(t, table.Obstacles())
			assert.Empty(t, table.IPv6Trouble())
			assert.Equal(t, gen, table.Generation())
		}()
		select {
		case <-told:
		case <-time.After(5 * time.Second):
			t.Error("waits for the reading")
		}
		return keys, 0
	}
	_, err = table.Observe(t.Context())
	require.NoError(t, err)
	require.Positive(t, asked)
	require.Zero(t, table.OpenUntil())
}

// Somebody who writes faster than we read, to other tables, does not keep us from putting ours right.
func TestRepairWhileSomebodyWritesAllTheTime(t *testing.T) {
	rules := func(k *fakeKernel) { k.table.rules = k.table.rules[1:] }
	for name, spoil := range map[string]func(k *fakeKernel){
		"rules": rules,
		"set": func(k *fakeKernel) {
			rules(k)
			k.table.sets["strange"] = &fakeSet{keys: map[uint32]bool{}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // for the pauses between readings
				k := &fakeKernel{}
				table := openFake(t, k)
				require.NoError(t, table.Apply(t.Context(), stop(3)))
				spoil(k)
				k.gen++
				k.onDump = func(_ int, keys []uint32) ([]uint32, netlink.HeaderFlags) {
					k.gen++
					return keys, 0
				}
				have, err := table.Observe(t.Context())
				require.NoError(t, err)
				require.Equal(t, 3, have.Counts()[access.SetStopped])
				require.Len(t, k.table.rules, len(ruleset.Rules(ruleset.Policy{})))
				require.NotContains(t, k.table.sets, "strange")
				require.EqualValues(t, 1, table.Repairs())
				changed, err := table.Changed(t.Context())
				require.NoError(t, err)
				require.True(t, changed, "what was written meanwhile is still to be seen")
				requireStopped(t, k, table, 3)
				changed, err = table.Changed(t.Context())
				require.NoError(t, err)
				require.False(t, changed)
			})
		})
	}
}

// For an interface that has just gone the kernel before 6.16 refuses the whole table: the others have their chains all the same.
func TestEgressWithoutAnInterfaceThatHasGone(t *testing.T) {
	k := &fakeKernel{}
	table := openFake(t, k)
	table.hasDevice = func(name string) bool { return !slices.Contains(k.gone, name) }
	table.Reconfigure(ruleset.Policy{IPv6: true, Egress: "one two three"})
	k.gone = []string{"two"}
	_, err := table.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"one", "three"}, k.egress)
	require.Empty(t, table.IPv6Trouble())
	changed, err := table.Changed(t.Context())
	require.NoError(t, err)
	require.False(t, changed)

	before := k.batches
	_, err = table.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, k.batches-before, "it is known by now")

	k.gone = nil
	changed, err = table.Changed(t.Context())
	require.NoError(t, err)
	require.True(t, changed, "it is back, and has no chain")
	_, err = table.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two", "three"}, k.egress)
	changed, err = table.Changed(t.Context())
	require.NoError(t, err)
	require.False(t, changed)

	k.gone = []string{"one", "two", "three"}
	table.Reconfigure(ruleset.Policy{IPv6: true, Egress: "two"})
	_, err = table.Observe(t.Context())
	require.NoError(t, err)
	require.Contains(t, table.IPv6Trouble(), "no egress chain")
}

// fakeEvents is the socket of Watch, on which nothing is ever heard.
type fakeEvents struct {
	fakeSocket
	ended chan struct{}
}

func (s *fakeEvents) JoinGroup(uint32) error  { return nil }
func (s *fakeEvents) LeaveGroup(uint32) error { return nil }
func (s *fakeEvents) SetReadDeadline(time.Time) error {
	close(s.ended)
	return nil
}
func (s *fakeEvents) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		<-s.ended
		yield(netlink.Message{}, os.ErrDeadlineExceeded)
	}
}

// A big batch that fails is tried again ever more rarely, as is said of it.
func TestFailedBigBatchIsTriedAgainAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const enough = 200
		k := &fakeKernel{}
		table := openFake(t, k)
		table.listen = func() (*netlink.Conn, error) {
			return netlink.NewConn(&fakeEvents{ended: make(chan struct{})}, 2), nil
		}
		before := k.batches
		k.onBatch = func(n int) (bool, unix.Errno) {
			if n-before > enough { // else a loop without a pause would have no end here
				return true, 0
			}
			return false, unix.ENOMEM
		}
		var in provision.Input
		for i := range 2 * muteFrom {
			id := provision.SubscriberID(i + 1)
			in.Lines = append(in.Lines, provision.Line{Subscriber: id, Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}))})
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: provision.StateStop})
		}
		snap, _ := provision.Build(in)
		e := access.NewEnforcer(access.Options{}, table, nil, func() *provision.Snapshot { return snap }, nil, discard())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.NoError(t, e.Run(ctx))
		require.Greater(t, k.batches-before, 3)
		require.Less(t, k.batches-before, 12, "0.1 s, 0.2, 0.4 and so on lie between them")
	})
}
