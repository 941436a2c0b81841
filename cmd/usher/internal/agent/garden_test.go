package agent

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
)

// What is in a garden is not blocked, so an answer of the DNS must not put customers into one, wherever they are.
func TestNoNameOpensACustomer(t *testing.T) {
	cfg := &config.Config{}
	cfg.ACL.Networks = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	var snap *provision.Snapshot
	o := gardenOptions(cfg, func() *provision.Snapshot { return snap })
	assert.Contains(t, o.Refuse, cfg.ACL.Networks[0])
	assert.Nil(t, o.Bound(), "nobody knows yet")
	a := netip.MustParseAddr("198.51.100.7")
	snap, _ = provision.Build(provision.Input{Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(a)}}})
	assert.True(t, o.Bound()(a))
	assert.False(t, o.Bound()(a.Next()))
}
