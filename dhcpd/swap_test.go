package dhcpd

import (
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// bigInput is n bindings on switches of 48 ports; the first is that of client 0x11
// at port 1 of switch1.
func bigInput(n int) provision.Input {
	in := provision.Input{Source: provision.SourceDirect}
	for i := range n {
		d := provision.DeviceID(1 + i/48)
		b := provision.Line{
			Subscriber: provision.SubscriberID(1 + i), Device: d, Port: uint32(1 + i%48),
			Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})),
			MAC:       provision.MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)},
		}
		if i == 0 {
			b.Addresses, b.MAC = provision.Hosts4(host(11)), client(0x11)
		}
		if i%48 == 0 {
			mac := provision.MAC{2, 1, 0, 0, byte(d >> 8), byte(d)}
			if i == 0 {
				mac = switch1
			}
			in.Devices = append(in.Devices, provision.Device{ID: d, MAC: mac})
		}
		in.Lines = append(in.Lines, b)
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: b.Subscriber, State: provision.StateActive})
	}
	return in
}

// BenchmarkDecisionDuringSwap tells percentiles of a renewal, all but the
// sockets, while nothing else runs and while snapshots of 100,000 bindings are
// built and exchanged without a pause, which the agent does once in minutes. A
// packet is due every 200 µs. "handle" is the time from the start of the work
// to its end, "answer" from when the packet was due, so the time until the
// goroutine runs is in it. Go runs with the settings of "usher run". It needs a
// machine that is idle otherwise.
func BenchmarkDecisionDuringSwap(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(4, runtime.GOMAXPROCS(0))))
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	in := bigInput(100_000)
	first, _ := provision.Build(in)
	var current atomic.Pointer[provision.Snapshot]
	current.Store(first)
	s, err := New(testOptions(), Deps{Snapshot: current.Load, Leases: lease.New(), Observer: Observers{NewEventLog(16)}})
	require.NoError(b, err)
	h := newHandler(s, newCommitter(s, discard{}), discard{}, nil)
	q := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11), GIAddr: relayIP, Option82: port(switch1, 1)}
	g := socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	const packets = 5_000
	measure := func(handle, answer []time.Duration) ([]time.Duration, []time.Duration) {
		due := time.Now()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for range packets {
			due = due.Add(200 * time.Microsecond)
			timer.Reset(time.Until(due))
			<-timer.C
			began := time.Now()
			h.handle(began, g)
			handle, answer = append(handle, time.Since(began)), append(answer, time.Since(due))
			if late := time.Since(due); late > 200*time.Microsecond {
				due = due.Add(late) // the packets meanwhile are not counted: each stands for itself
			}
		}
		require.Equal(b, outcome.Ack, h.ev.Outcome)
		return handle, answer
	}
	measure(nil, nil)
	var times [4][]time.Duration // handle and answer, idle and during swaps
	swaps := 0
	for b.Loop() {
		times[0], times[1] = measure(times[0], times[1])
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				next, _ := provision.Build(in)
				current.Store(next)
				swaps++
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		times[2], times[3] = measure(times[2], times[3])
		close(stop)
		wg.Wait()
	}
	for _, list := range times {
		slices.Sort(list)
	}
	for i, what := range []string{"handle", "answer"} {
		for _, p := range []float64{50, 99, 99.9} {
			at := func(list []time.Duration) float64 { return list[int(float64(len(list))*p/100)].Seconds() * 1e6 }
			idle, busy := at(times[i]), at(times[i+2])
			b.ReportMetric(idle, fmt.Sprintf("%s-p%v-idle-µs", what, p))
			b.ReportMetric(busy, fmt.Sprintf("%s-p%v-swap-µs", what, p))
			b.ReportMetric(busy/idle, fmt.Sprintf("%s-p%v-ratio", what, p))
		}
	}
	b.ReportMetric(float64(swaps)/float64(b.N), "swaps/op")
}
