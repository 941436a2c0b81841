package neighbour

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

type fakeNeighbours struct{ entries chan Neighbour }

func (f *fakeNeighbours) Watch(ctx context.Context, on func(Neighbour)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case n := <-f.entries:
			on(n)
		}
	}
}

type neighbourWorld struct {
	kernel  fakeNeighbours
	told    []string
	counts  map[Outcome]int
	leases  *lease.Table
	fail    error
	fetched provision.Input
	snap    *provision.Snapshot
}

func newNeighbourWorld(t *testing.T) *neighbourWorld {
	t.Helper()
	w := &neighbourWorld{kernel: fakeNeighbours{make(chan Neighbour)}, counts: map[Outcome]int{}, leases: lease.New()}
	w.fetched = provision.Input{Source: provision.SourceDirect, Subnets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	for i := range 20 {
		w.bind(byte(i), byte(i))
	}
	w.fetch()
	watcher := New(
		Options{Serves: func(name string) bool { return name == "c1" }, MinTime: 10 * time.Second}, &w.kernel,
		Deps{
			Snapshot: func() *provision.Snapshot { return w.snap },
			Leases:   w.leases,
			Count:    func(o Outcome) { w.counts[o]++ },
			Report: func(r provision.MACReport) error {
				w.told = append(w.told, fmt.Sprintf("%s is %s of %d", r.IP, r.MAC, r.Subscriber))
				return w.fail
			},
		}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- watcher.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return w
}

func macOf(last byte) provision.MAC { return provision.MAC{0, 0, 0x5e, 0, 0x53, last} }

// bind makes the ERP know a MAC for the address with the same last byte.
func (w *neighbourWorld) bind(last, mac byte) {
	row := provision.Line{Subscriber: provision.SubscriberID(1000 + int(last)), Addresses: provision.Hosts4(neighbourIP(last)), MAC: macOf(mac)}
	for i, b := range w.fetched.Lines {
		if b.Addresses[0] == row.Addresses[0] {
			w.fetched.Lines[i] = row
			return
		}
	}
	w.fetched.Lines = append(w.fetched.Lines, row)
}

func (w *neighbourWorld) fetch() { w.snap, _ = provision.Build(w.fetched) }

func (w *neighbourWorld) see(last, mac byte, s State) {
	w.kernel.entries <- Neighbour{IP: neighbourIP(last), MAC: macOf(mac), Interface: "c1", State: s}
	synctest.Wait()
}

// lease is one of DHCP that outlives the test.
func (w *neighbourWorld) lease(last byte) {
	w.leases.Store(lease.Record{IP: neighbourIP(last), MAC: macOf(last), State: lease.StateBound, Expires: time.Now().Add(24 * time.Hour)})
}

// wait lets the watcher see what the test has written, and time pass.
func (w *neighbourWorld) wait(d time.Duration) {
	w.kernel.entries <- Neighbour{Interface: "none"}
	time.Sleep(d)
	synctest.Wait()
}

func TestNeighbourWatcher(t *testing.T) {
	const told = "198.51.100.7 is 00:00:5e:00:53:aa of 1007"
	tests := []struct {
		name   string
		run    func(*neighbourWorld)
		told   []string
		counts map[Outcome]int
	}{
		{"another MAC, confirmed", func(w *neighbourWorld) {
			w.see(7, 0xaa, Confirmed)
			w.wait(9 * time.Second)
			w.told = append(w.told, "nothing yet")
			w.wait(time.Second)
		}, []string{"nothing yet", told}, map[Outcome]int{Reported: 1}},
		{"ages and is confirmed again meanwhile", func(w *neighbourWorld) {
			w.see(7, 0xaa, Confirmed)
			w.see(7, 0xaa, Claimed)
			w.wait(5 * time.Second)
			w.see(7, 0xaa, Confirmed)
			w.wait(5 * time.Second)
		}, []string{told}, map[Outcome]int{Reported: 1}},
		{"the ERP's own", func(w *neighbourWorld) {
			w.see(7, 7, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Known: 1}},
		{"only claimed, such as by a broadcast", func(w *neighbourWorld) {
			w.see(7, 0xaa, Claimed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{}},
		{"a group address", func(w *neighbourWorld) {
			w.kernel.entries <- Neighbour{IP: neighbourIP(7), MAC: provision.MAC{1, 0, 0x5e, 0, 0, 1}, Interface: "c1", State: Confirmed}
			w.wait(time.Minute)
		}, nil, map[Outcome]int{}},
		{"bound to nobody", func(w *neighbourWorld) {
			w.see(200, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Unbound: 1}},
		{"an interface that does not count", func(w *neighbourWorld) {
			w.kernel.entries <- Neighbour{IP: neighbourIP(7), MAC: macOf(0xaa), Interface: "uplink", State: Confirmed}
			w.wait(time.Minute)
		}, nil, map[Outcome]int{}},
		{"a DHCP lease is the better witness", func(w *neighbourWorld) {
			w.lease(7)
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Leased: 1}},
		{"a lease that begins within the time", func(w *neighbourWorld) {
			w.see(7, 0xaa, Confirmed)
			w.lease(7)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Leased: 1}},
		{"two fight for one address", func(w *neighbourWorld) {
			for range 10 {
				w.see(7, 0xaa, Confirmed)
				w.wait(5 * time.Second)
				w.see(7, 0xbb, Confirmed)
				w.wait(5 * time.Second)
			}
			w.see(7, 7, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Contradicted: 19, Known: 1}},
		{"somebody else claims it within the time", func(w *neighbourWorld) {
			w.see(7, 0xaa, Confirmed)
			w.see(7, 7, Claimed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Contradicted: 1}},
		{"gone within the time", func(w *neighbourWorld) {
			w.see(7, 0xaa, Confirmed)
			w.see(7, 0, Gone)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{}},
		{"the ERP learns it within the time", func(w *neighbourWorld) {
			w.see(7, 0xaa, Confirmed)
			w.bind(7, 0xaa)
			w.fetch()
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Known: 1}},
		{"told once, and after an hour once more", func(w *neighbourWorld) {
			for range 3 {
				w.see(7, 0xaa, Confirmed)
				w.wait(25 * time.Minute)
			}
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, []string{told, told}, map[Outcome]int{Reported: 2, Repeated: 2}},
		{"the outbox fails", func(w *neighbourWorld) {
			w.fail = errors.New("disk full")
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
			w.fail = nil
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, []string{told, told}, map[Outcome]int{Failed: 1, Reported: 1}},
		{"a switch that answers for everybody", func(w *neighbourWorld) {
			for last := range byte(10) {
				w.see(1+last, 0xaa, Confirmed)
			}
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Shared: 10}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNeighbourWorld(t)
				tt.run(w)
				require.Equal(t, tt.told, w.told)
				require.Equal(t, tt.counts, w.counts)
			})
		})
	}
}

// neighbourIP returns the address of the neighbour that tests call by its last byte.
func neighbourIP(last byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, last}) }
