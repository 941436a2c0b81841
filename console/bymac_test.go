package console

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// A status counts ACKs since the start, clients of the packets remembered, and what was refused, and says what to do.
func TestByMACStatus(t *testing.T) {
	w := newWorld(t)
	assert.Equal(t, ByMACStatus{Given: []ByMACCount{}}, w.status().DHCP.ByMAC)
	see := func(m string, o outcome.Outcome, s v4.Stray) {
		w.packet(dhcpd.Event{Time: testStart, Type: wire.Request, Outcome: o, Stray: s, MAC: mac(t, m)})
	}
	for range 3 {
		see("00:00:5e:00:53:11", outcome.Ack, v4.StrayUnknownPort)
	}
	see("00:00:5e:00:53:12", outcome.PoolAck, v4.StrayUnknownPort)
	see("00:00:5e:00:53:13", outcome.Offer, v4.StrayUnknownPort)
	see("00:00:5e:00:53:13", outcome.AckBeforeCommit, v4.StrayMoved)
	see("00:00:5e:00:53:14", outcome.Ack, v4.StrayNone)
	see("00:00:5e:00:53:15", outcome.MACElsewhere, v4.StrayNone)
	st := w.status().DHCP.ByMAC
	assert.Equal(t, []ByMACCount{
		{Line: "unknown_port", Acks: 4, Clients: 2, Text: v4.StrayUnknownPort.Explain(), Advice: strayAdvice(v4.StrayUnknownPort)},
		{Line: "moved", Acks: 1, Clients: 1, Text: v4.StrayMoved.Explain(), Advice: strayAdvice(v4.StrayMoved)},
	}, st.Given)
	assert.Equal(t, uint64(1), st.Elsewhere)
	assert.Equal(t, Advice(outcome.MACElsewhere), st.Advice)
	for s := range v4.Strays() {
		assert.Equal(t, s == v4.StrayNone, strayAdvice(s) == "", s)
	}

	w.Metrics = nil
	assert.Equal(t, ByMACStatus{Given: []ByMACCount{}}, w.status().DHCP.ByMAC, "nobody counts")
}
