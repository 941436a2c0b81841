package config

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/config/keys"
)

func TestRestart(t *testing.T) {
	h := Hooks{Listen: netip.MustParseAddrPort("127.0.0.1:9468"), Secret: testSecret, Window: time.Minute,
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	old, changed := &Config{Hooks: h}, &Config{Hooks: h}
	assert.Empty(t, keys.Restart(old, changed))
	changed.Hooks.Secret, changed.Hooks.Window, changed.Hooks.Allow = "another", time.Hour, nil
	assert.Empty(t, keys.Restart(old, changed), "taken by a reload")
	changed.Hooks.Listen = netip.AddrPort{}
	assert.Equal(t, []string{"hooks.listen"}, keys.Restart(old, changed))
}

// A key that needs a restart is found wherever it stands, and told by the name of
// the section where the whole section needs one.
func TestRestartOfEveryMarkedKey(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"state_dir":           func(c *Config) { c.StateDir = "/var" },
		"hooks.listen":        func(c *Config) { c.Hooks.Listen = netip.MustParseAddrPort("127.0.0.1:1") },
		"dhcp.enabled":        func(c *Config) { c.DHCP.Enabled = true },
		"dhcp.listen":         func(c *Config) { c.DHCP.Listen = netip.MustParseAddrPort("127.0.0.1:67") },
		"acl.enabled":         func(c *Config) { c.ACL.Enabled = true },
		"acl.dry_run":         func(c *Config) { c.ACL.DryRun = true },
		"portal.listen":       func(c *Config) { c.Portal.Listen = netip.MustParseAddrPort("127.0.0.1:1") },
		"portal.https.listen": func(c *Config) { c.Portal.HTTPS.Listen = netip.MustParseAddrPort("127.0.0.1:1") },
		"routes.enabled":      func(c *Config) { c.Routes.Enabled = true },
		"routes.protocol":     func(c *Config) { c.Routes.Protocol = 200 },
		"neighbours.enabled":  func(c *Config) { c.Neighbours.Enabled = true },
		"control":             func(c *Config) { c.Control.Group = "netadmin" },
		"console.listen":      func(c *Config) { c.Console.Listen = netip.MustParseAddrPort("127.0.0.1:1") },
		"log":                 func(c *Config) { c.Log.Level = "debug" },
	} {
		changed := &Config{}
		change(changed)
		assert.Equal(t, []string{key}, keys.Restart(&Config{}, changed))
	}
	assert.Empty(t, keys.Restart(&Config{}, &Config{ACL: ACL{DNS: []netip.Prefix{{}}}}))
}
