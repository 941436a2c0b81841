package dhcpd

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/lease"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// bigInput is n bindings on switches of 48 ports; the first is that of client 0x11
// at port 1 of switch1.
func bigInput(n int) provision.Input {
	in := provision.Input{Source: provision.SourceDirect}
	for i := range n {
		d := provision.DeviceID(1 + i/48)
		b := provision.Binding{
			Subscriber: provision.SubscriberID(1 + i), Device: d, Port: uint32(1 + i%48),
			IP:  netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)}),
			MAC: provision.MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)},
		}
		if i == 0 {
			b.IP, b.MAC = host(11), client(0x11)
		}
		if i%48 == 0 {
			mac := provision.MAC{2, 1, 0, 0, byte(d >> 8), byte(d)}
			if i == 0 {
				mac = switch1
			}
			in.Devices = append(in.Devices, provision.Device{ID: d, MAC: mac})
		}
		in.Bindings = append(in.Bindings, b)
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: b.Subscriber, State: provision.StateActive})
	}
	return in
}

// BenchmarkDecisionDuringSwap tells the 99.9th percentile of handling a renewal,
// all but the sockets, while nothing else runs and while snapshots of 100,000
// bindings are built and exchanged without a pause. Packets come one at a time,
// 5,000 a second. It needs a processor that is idle otherwise.
func BenchmarkDecisionDuringSwap(b *testing.B) {
	in := bigInput(100_000)
	first, _ := provision.Build(in)
	var current atomic.Pointer[provision.Snapshot]
	current.Store(first)
	s, err := New(testOptions(), Deps{Snapshot: current.Load, Leases: lease.New(), Observer: Observers{NewEventLog(16)}})
	require.NoError(b, err)
	h := newHandler(s, newCommitter(s, discard{}), discard{}, nil)
	q := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11), GIAddr: relayIP, Option82: port(switch1, 1)}
	g := datagram{data: q.Append(nil), from: netip.AddrPortFrom(relayIP, 67), ifindex: 3, to: serverIP}
	measure := func(n int) time.Duration {
		times := make([]time.Duration, n)
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		for i := range times {
			<-tick.C
			began := time.Now()
			h.handle(began, g)
			times[i] = time.Since(began)
		}
		require.Equal(b, OutcomeAck, h.ev.Outcome)
		slices.Sort(times)
		return times[n-1-n/1000]
	}
	measure(1000)
	var idle, busy time.Duration
	swaps := 0
	for b.Loop() {
		idle += measure(5_000)
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
		busy += measure(5_000)
		close(stop)
		wg.Wait()
	}
	b.ReportMetric(float64(idle.Microseconds())/float64(b.N), "idle-p99.9-µs")
	b.ReportMetric(float64(busy.Microseconds())/float64(b.N), "swap-p99.9-µs")
	b.ReportMetric(float64(swaps)/float64(b.N), "swaps/op")
}
