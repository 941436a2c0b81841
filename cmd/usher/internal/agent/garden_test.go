package agent

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/config"
)

// What is in a garden is not blocked, so an answer of the DNS must not put customers into one, wherever they are.
func TestNoNameOpensACustomer(t *testing.T) {
	cfg := &config.Config{}
	cfg.ACL.Networks = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	assert.Contains(t, gardenOptions(cfg).Refuse, cfg.ACL.Networks[0])
}
