package neighbour

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

type fakeNeighbours struct {
	entries chan Neighbour
	ask     func(Question) (Answer, error)
}

// Ask takes all the time that there is where nobody answers.
func (f *fakeNeighbours) Ask(ctx context.Context, q Question) (Answer, error) {
	a, err := f.ask(q)
	if a == Silent && !q.Known.IsZero() {
		<-ctx.Done()
	}
	return a, err
}

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
	kernel    fakeNeighbours
	watcher   *Watcher
	opts      Options
	told      []string
	sightings []provision.ARPSighting
	counts    map[Outcome]int
	leases    *lease.Table
	fail      error
	mu        sync.Mutex // guards asked
	asked     []string   // when, since the beginning, and what
	fetched   provision.Input
	snap      *provision.Snapshot
}

func newNeighbourWorld(t *testing.T) *neighbourWorld {
	t.Helper()
	w := &neighbourWorld{kernel: fakeNeighbours{entries: make(chan Neighbour)}, counts: map[Outcome]int{}, leases: lease.New()}
	w.nobodyAnswers()
	w.fetched = provision.Input{Source: provision.SourceDirect, Subnets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	for i := range 20 {
		w.bind(byte(i), byte(i))
	}
	w.fetch()
	w.opts = Options{Serves: func(name string) bool { return name == "c1" || name == "c2" }, MinTime: 10 * time.Second}
	w.watcher = New(w.opts, &w.kernel,
		Deps{
			Snapshot: func() *provision.Snapshot { return w.snap },
			Leases:   w.leases,
			Count:    func(o Outcome) { w.counts[o]++ },
			Report: func(r provision.MACReport) error {
				w.told = append(w.told, fmt.Sprintf("%s is %s of %d", r.IP, r.MAC, r.Subscriber))
				w.sightings = append(w.sightings, r.ARP)
				return w.fail
			},
		}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.watcher.Run(ctx) }()
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

// answer has questions answered so; they are noted.
func (w *neighbourWorld) answer(f func(Question) (Answer, error)) {
	begin := time.Now()
	w.kernel.ask = func(q Question) (Answer, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked = append(w.asked, fmt.Sprintf("%s %s %s %s", time.Since(begin), q.Interface, q.IP, q.Known))
		return f(q)
	}
}

func (w *neighbourWorld) nobodyAnswers() {
	w.answer(func(Question) (Answer, error) { return Silent, nil })
}

// ownersAnswer has the ERP's MACs answer, each for its address.
func (w *neighbourWorld) ownersAnswer() {
	w.answer(func(Question) (Answer, error) { return Answers, nil })
}

func (w *neighbourWorld) fetch() {
	w.fetched.FetchedAt = time.Now()
	w.snap, _ = provision.Build(w.fetched)
}

func (w *neighbourWorld) see(last, mac byte, s State) { w.seeOn("c1", last, mac, s) }

func (w *neighbourWorld) seeOn(iface string, last, mac byte, s State) {
	w.kernel.entries <- Neighbour{IP: neighbourIP(last), MAC: macOf(mac), Interface: iface, State: s}
	synctest.Wait()
}

// reload changes the options while the watcher runs.
func (w *neighbourWorld) reload(change func(*Options)) {
	change(&w.opts)
	w.watcher.Reconfigure(w.opts)
}

// forgetMAC makes the ERP know no MAC for the address.
func (w *neighbourWorld) forgetMAC(last byte) {
	for i, b := range w.fetched.Lines {
		if b.Addresses[0].Prefix.Addr() == neighbourIP(last) {
			w.fetched.Lines[i].MAC = provision.MAC{}
		}
	}
	w.fetch()
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
		{"another one within the hour, though the first is known by now", func(w *neighbourWorld) {
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
			w.bind(7, 0xaa)
			w.fetch()
			w.see(7, 0xaa, Confirmed)
			w.see(7, 0xbb, Confirmed)
			w.wait(time.Hour)
			w.see(7, 7, Gone)
			w.see(7, 0xbb, Confirmed)
			w.wait(time.Minute)
		}, []string{told, "198.51.100.7 is 00:00:5e:00:53:bb of 1007"}, map[Outcome]int{Reported: 2, Known: 1, Repeated: 1}},
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
		{"a lease that was given back and is kept", func(w *neighbourWorld) {
			w.leases.Store(lease.Record{IP: neighbourIP(7), MAC: macOf(7), State: lease.StateReleased, Expires: time.Now().Add(time.Hour)})
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Leased: 1}},
		{"a lease that is over", func(w *neighbourWorld) {
			w.leases.Store(lease.Record{IP: neighbourIP(7), MAC: macOf(7), State: lease.StateBound, Expires: time.Now()})
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, []string{told}, map[Outcome]int{Reported: 1}},
		{"an address of a pool that the ERP binds since", func(w *neighbourWorld) {
			w.leases.Store(lease.Record{IP: neighbourIP(7), MAC: macOf(0x99), Pool: "guests", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Leased: 1}},
		{"no change is wanted", func(w *neighbourWorld) {
			w.reload(func(o *Options) { o.RefuseChange = true })
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Refused: 1}},
		{"no change is wanted any more", func(w *neighbourWorld) {
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Second)
			w.reload(func(o *Options) { o.RefuseChange = true })
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Refused: 1}},
		{"the first MAC where no change is wanted", func(w *neighbourWorld) {
			w.reload(func(o *Options) { o.RefuseChange = true })
			w.forgetMAC(7)
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, []string{told}, map[Outcome]int{Reported: 1}},
		{"the owner still answers", func(w *neighbourWorld) {
			w.ownersAnswer()
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{StillAnswers: 1}},
		{"the owner answers the last question", func(w *neighbourWorld) {
			w.answer(func(Question) (Answer, error) {
				if len(w.asked) == questions {
					return Answers, nil
				}
				return Silent, nil
			})
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{StillAnswers: 1}},
		{"a thief who flaps under many names", func(w *neighbourWorld) {
			w.ownersAnswer()
			for i := range byte(20) {
				w.see(7, 0xa0+i, Confirmed)
				w.see(7, 7, Claimed)
			}
			w.told = w.asked
		}, []string{"0s c1 198.51.100.7 00:00:5e:00:53:07"}, map[Outcome]int{StillAnswers: 20}},
		{"the owner leaves after it answered", func(w *neighbourWorld) {
			w.ownersAnswer()
			w.see(7, 0xaa, Confirmed)
			w.nobodyAnswers()
			w.wait(askAgain)
			w.see(7, 0xaa, Confirmed)
			w.wait(10 * time.Second)
		}, []string{told}, map[Outcome]int{StillAnswers: 1, Reported: 1}},
		{"the ERP names another owner, who is silent", func(w *neighbourWorld) {
			w.ownersAnswer()
			w.see(7, 0xaa, Confirmed)
			w.nobodyAnswers()
			w.wait(time.Second)
			w.bind(7, 0x99)
			w.fetch()
			w.see(7, 0xaa, Confirmed)
			w.wait(10 * time.Second)
		}, nil, map[Outcome]int{StillAnswers: 1, Overruled: 1}},
		{"another way of reading the ERP names another owner, who is silent", func(w *neighbourWorld) {
			w.ownersAnswer()
			w.see(7, 0xaa, Confirmed)
			w.nobodyAnswers()
			w.wait(time.Second)
			w.bind(7, 0x99)
			w.fetched.Source = provision.SourceComposed
			w.fetch()
			w.see(7, 0xaa, Confirmed)
			w.wait(10 * time.Second)
		}, []string{told}, map[Outcome]int{StillAnswers: 1, Reported: 1}},
		{"the ERP names another owner meanwhile, who answers", func(w *neighbourWorld) {
			w.answer(func(q Question) (Answer, error) {
				if q.Known == macOf(0x99) {
					return Answers, nil
				}
				return Silent, nil
			})
			w.see(7, 0xaa, Confirmed)
			w.wait(8 * time.Second)
			w.bind(7, 0x99)
			w.fetched.Source = provision.SourceComposed // else it would be the operator's word, and nobody asked
			w.fetch()
			w.wait(time.Minute)
		}, nil, map[Outcome]int{StillAnswers: 1}},
		{"nobody can be asked", func(w *neighbourWorld) {
			w.answer(func(Question) (Answer, error) { return 0, errors.New("not permitted") })
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Unasked: 1}},
		{"seen where the router does not send to", func(w *neighbourWorld) {
			w.answer(func(q Question) (Answer, error) { return Astray, nil })
			w.see(7, 0xaa, Confirmed)
			w.forgetMAC(8)
			w.see(8, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Elsewhere: 2}},
		{"seen in another VLAN than the ERP's", func(w *neighbourWorld) {
			w.reload(func(o *Options) { o.VLANOf = func(name string) (uint16, bool) { return uint16(name[1] - '0'), true } })
			w.fetched.Lines[7].VLAN = 2
			w.fetch()
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
			w.seeOn("c2", 7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, []string{told}, map[Outcome]int{Elsewhere: 1, Reported: 1}},
		{"what is claimed on another wire contradicts nobody", func(w *neighbourWorld) {
			w.answer(func(q Question) (Answer, error) {
				if q.Interface == "c2" {
					return Astray, nil
				}
				return Silent, nil
			})
			w.see(7, 0xaa, Confirmed)
			for range 3 {
				w.seeOn("c2", 7, 0xbb, Claimed)
				w.seeOn("c2", 7, 0xbb, Confirmed)
				w.seeOn("c2", 7, 0, Gone)
			}
			w.wait(10 * time.Second)
		}, []string{told}, map[Outcome]int{Elsewhere: 3, Reported: 1}},
		{"the MAC is another subscriber's in the ERP", func(w *neighbourWorld) {
			w.forgetMAC(7)
			w.see(7, 8, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Foreign: 1}},
		{"the MAC is another subscriber's by a lease", func(w *neighbourWorld) {
			w.leases.Store(lease.Record{IP: neighbourIP(200), MAC: macOf(0xaa), Subscriber: 1008, Pool: "p", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Foreign: 1}},
		{"the MAC has an address as a guest", func(w *neighbourWorld) {
			w.leases.Store(lease.Record{IP: neighbourIP(200), MAC: macOf(0xaa), Pool: "p", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, nil, map[Outcome]int{Foreign: 1}},
		{"the MAC had an address as a guest, and another of this subscriber", func(w *neighbourWorld) {
			w.leases.Store(lease.Record{IP: neighbourIP(200), MAC: macOf(0xaa), Pool: "p", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
			w.fetched.Lines = append(w.fetched.Lines, provision.Line{Subscriber: 1007, Addresses: provision.Hosts4(neighbourIP(201)), MAC: macOf(0xaa)})
			w.fetch()
			w.see(7, 0xaa, Confirmed)
			w.wait(time.Minute)
		}, []string{told}, map[Outcome]int{Reported: 1}},
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

// The questions are spread over the waiting time, and the report says what they were.
func TestQuestions(t *testing.T) {
	const known, known8 = " c1 198.51.100.7 00:00:5e:00:53:07", " c1 198.51.100.7 00:00:00:00:00:00"
	for _, c := range []struct {
		minTime time.Duration
		first   bool
		asked   []string
		after   time.Duration
	}{
		{10 * time.Second, false, []string{"0s" + known, "4.5s" + known, "9s" + known}, 10 * time.Second},
		{time.Hour, false, []string{"0s" + known, "29m59.5s" + known, "59m59s" + known}, time.Hour},
		{0, false, []string{"0s" + known, "1s" + known, "2s" + known}, 3 * time.Second},
		{10 * time.Second, true, []string{"0s" + known8}, 10 * time.Second},
		{0, true, []string{"0s" + known8}, 0},
	} {
		t.Run(fmt.Sprintf("%s, first %v", c.minTime, c.first), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNeighbourWorld(t)
				w.reload(func(o *Options) { o.MinTime = c.minTime })
				sighting := provision.ARPSighting{Interface: "c1", Silent: macOf(7), Asked: questions}
				if c.first {
					w.forgetMAC(7)
					sighting = provision.ARPSighting{Interface: "c1"}
				}
				w.see(7, 0xaa, Confirmed)
				if c.after > 0 {
					w.wait(c.after - time.Nanosecond)
					require.Empty(t, w.told)
					w.wait(time.Nanosecond)
				}
				require.Len(t, w.told, 1)
				require.Equal(t, c.asked, w.asked)
				require.Equal(t, []provision.ARPSighting{sighting}, w.sightings)
			})
		})
	}
}

// Who claims more on one wire than can be asked holds up nobody on another one,
// nor for good those beside him.
func TestQuestionsOfAWireAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNeighbourWorld(t)
		for last := range byte(19) {
			w.see(1+last, 0xa1+last, Confirmed)
		}
		require.Len(t, w.asked, maxAskingOn)
		w.see(3, 3, Gone) // its question is on its way
		w.fetched.Lines = append(w.fetched.Lines, provision.Line{Subscriber: 7, Addresses: provision.Hosts4(neighbourIP(100)), MAC: macOf(100)})
		w.fetch()
		w.seeOn("c2", 100, 0xee, Confirmed)
		require.Len(t, w.asked, maxAskingOn+1)
		w.wait(10 * time.Second)
		require.Contains(t, w.told, "198.51.100.100 is 00:00:5e:00:53:ee of 7")
		w.wait(10 * time.Second)
		require.Equal(t, map[Outcome]int{Reported: 19}, w.counts)
	})
}

// A cause why nobody can be asked is told once, until it is over.
func TestUnaskedIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNeighbourWorld(t)
		var log strings.Builder
		w.watcher.log = slog.New(slog.NewTextHandler(&log, nil))
		w.answer(func(Question) (Answer, error) { return 0, errors.New("not permitted") })
		for last := range byte(5) {
			w.see(1+last, 0xa1+last, Confirmed)
		}
		require.Equal(t, map[Outcome]int{Unasked: 5}, w.counts)
		require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
		w.ownersAnswer()
		w.see(9, 0xa9, Confirmed)
		require.Equal(t, 1, strings.Count(log.String(), "can be asked again"), log.String())
	})
}

// neighbourIP returns the address of the neighbour that tests call by its last byte.
func neighbourIP(last byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, last}) }
