package show

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/outbox"
)

// A MAC that is not reported, since it is another client's, is shown with both.
func TestStatusNamesForeignMACs(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, printStatus(&out, &console.Status{Ready: true, Build: console.Build{Version: "v1"}, Outbox: &outbox.Status{Foreign: 3, ForeignList: []outbox.Foreign{{
		MACReport: provision.MACReport{IP: netip.MustParseAddr("198.51.100.17"), MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, 0x81}, Subscriber: 1001},
		Owner:     1002, OwnerIP: netip.MustParseAddr("198.51.100.81"),
	}}}}))
	assert.Contains(t, out.String(), "3 dropped, for the MAC is that of another client, who is found by it")
	assert.Contains(t, out.String(), "dropped 198.51.100.17 00:00:5e:00:53:81 of customer 1001: the MAC is that of customer 1002 (198.51.100.81), who is found by it")
}
