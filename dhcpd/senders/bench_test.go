package senders

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// BenchmarkNote tells what a packet costs, of relays by turns.
func BenchmarkNote(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n, "_relays"), func(b *testing.B) {
			d := newDesk(b, relays("10.0.0.0/16"))
			rs := make([]*v4.Request, n)
			for i := range rs {
				rs[i] = d.packet(wire.Discover, fmt.Sprintf("10.0.%d.%d 10.0.%d.%d eth0", i>>8, i&255, i>>8, i&255))
				d.Note(d.now, rs[i], d.cfg)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.Note(d.now, rs[i%n], d.cfg)
			}
		})
	}
}

// Neither a known sender costs memory, nor one that there is no room for.
func TestNoteAllocatesNothing(t *testing.T) {
	d := newDesk(t, relays("10.0.0.0/24"))
	known := d.packet(wire.Discover, "10.0.0.1 10.0.0.1 eth0")
	d.Note(d.now, known, d.cfg)
	d.flood(RelayUntrusted.limit()+1, "10.1", "10.1.0.1")
	late := d.packet(wire.Discover, "10.2.0.1 10.2.0.1 eth0")
	assert.Equal(t, outcome.RelayUntrusted, late.Trust.Refused)
	assert.Zero(t, testing.AllocsPerRun(500, func() {
		d.Note(d.now, known, d.cfg)
		d.Note(d.now, late, d.cfg)
	}))
}
