package console

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/outbox"
)

// A MAC that the ERP is not told, since another client is found by it, is named for the one who uses it, for whom it is, and by itself.
func TestForeignMACsAreShown(t *testing.T) {
	w := newWorld(t)
	m := mac(t, "00:00:5e:00:53:11")
	x := outbox.Foreign{MACReport: provision.MACReport{IP: ip("198.51.100.12"), MAC: m, Subscriber: 1002}, DroppedAt: testStart, Owner: 1001, OwnerIP: ip("198.51.100.11")}
	w.Outbox = fakeOutbox{Foreign: 1, ForeignList: []outbox.Foreign{x}}
	assert.Equal(t, []outbox.Foreign{x}, w.status().Outbox.ForeignList)
	const says = "The ERP is not told that 198.51.100.12 of customer 1002 has the MAC 00:00:5e:00:53:11: the MAC is that of customer 1001 (198.51.100.11), who is found by it."
	for _, q := range []string{"198.51.100.12", "198.51.100.11", "1001", "1002", m.String()} {
		e, err := w.explain(t.Context(), q)
		require.NoError(t, err)
		assert.Equal(t, []outbox.Foreign{x}, e.Foreign, q)
		assert.Contains(t, e.Summary, says, q)
	}
	e, err := w.explain(t.Context(), "1003")
	require.NoError(t, err)
	assert.Empty(t, e.Foreign)
}
