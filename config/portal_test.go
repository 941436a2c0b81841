package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/provision/garden"
)

func TestGarden(t *testing.T) {
	cfg, err := Parse("usher.yaml", []byte(head+`
dhcp: {`+stated+`, subnets: [{prefix: 198.51.100.0/24}]}
acl:
  pause: {garden: [203.0.113.0/24, 10.0.0.5, Pay.Example.NET., xn--80ak6aa92e.example]}
  guest: {garden: [198.51.100.0/28]}
  resolvers: [192.0.2.53, "127.0.0.1:5353", "2001:db8::53"]
  resolve_interval: 30s
  resolve_keep: 2h
`), testEnv())
	require.NoError(t, err)
	assert.Equal(t, garden.List{
		Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("10.0.0.5/32")},
		Names:    []string{"pay.example.net", "xn--80ak6aa92e.example"},
	}, cfg.ACL.Pause.Garden, "what an operator writes may be private")
	assert.Equal(t, []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("127.0.0.1:5353"), netip.MustParseAddrPort("[2001:db8::53]:53"),
	}, cfg.ACL.Resolvers)
	assert.Equal(t, 30*time.Second, cfg.ACL.Garden.Interval)
	assert.Equal(t, 2*time.Hour, cfg.ACL.Garden.Keep)
	require.Len(t, cfg.Warnings, 1)
	assert.Contains(t, cfg.Warnings[0].String(), "acl.guest.garden[0]: 198.51.100.0/28 overlaps the served subnet")
}

// portalEnv has a certificate for portal.example.net and a template.
func portalEnv(t *testing.T) Env {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"portal.example.net"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	env := testEnv()
	base := env.ReadFile
	env.ReadFile = func(path string, limit int64) ([]byte, fs.FileMode, error) {
		switch path {
		case "/etc/usher/portal.crt":
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644, nil
		case "/etc/usher/portal.key":
			return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o640, nil
		case "/etc/usher/page.html":
			return []byte("<h1>{{.Text.Title}}</h1>"), 0o644, nil
		}
		return base(path, limit)
	}
	return env
}

const portalText = `
portal:
  listen: 198.51.100.1:8080
  https: {listen: "198.51.100.1:8443", url: "https://portal.example.net:8443/", cert_file: /etc/usher/portal.crt, key_file: /etc/usher/portal.key}
  template: /etc/usher/page.html
  languages: [uk, de]
  provider: " Example "
  pay_url: https://pay.example.net/?account={customer}
`

func TestPortal(t *testing.T) {
	cfg, err := Parse("usher.yaml", []byte(head+`
dhcp: {`+stated+`, common: {captive_portal: "https://portal.example.net:8443/captive-portal/api"}, subnets: [{prefix: 198.51.100.0/24}]}
`+portalText), portalEnv(t))
	require.NoError(t, err)
	assert.Equal(t, portal.Options{
		Listen: netip.MustParseAddrPort("198.51.100.1:8080"),
		HTTPS: portal.HTTPS{Listen: netip.MustParseAddrPort("198.51.100.1:8443"), URL: "https://portal.example.net:8443",
			CertFile: "/etc/usher/portal.crt", KeyFile: "/etc/usher/portal.key"},
		Template: "<h1>{{.Text.Title}}</h1>", Languages: []string{"uk", "de"}, Provider: "Example",
		PayURL: "https://pay.example.net/?account={customer}",
	}, cfg.Portal)
	assert.Empty(t, cfg.Warnings)
}

func TestPortalWarnings(t *testing.T) {
	subnets := "dhcp: {" + stated + ", subnets: [{prefix: 198.51.100.0/24}]}\n"
	for name, tt := range map[string]struct{ text, want string }{
		"option 114 is missing": {subnets + portalText,
			"portal.https.url: no lease tells of the API (option 114): set captive_portal: https://portal.example.net:8443/captive-portal/api in dhcp.common"},
		"another name in the certificate": {"dhcp: {enabled: false}\nportal: {https: {listen: \"198.51.100.1:8443\", url: \"https://other.example.net\", cert_file: /etc/usher/portal.crt, key_file: /etc/usher/portal.key}}\n",
			"portal.https.cert_file: the certificate is not for other.example.net"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := Parse("usher.yaml", []byte(head+tt.text), portalEnv(t))
			require.NoError(t, err)
			require.Len(t, cfg.Warnings, 1)
			assert.Contains(t, cfg.Warnings[0].String(), tt.want)
		})
	}
	_, err := Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\nportal: {listen: \"198.51.100.1:80\", https: {listen: \"198.51.100.1:80\", url: \"https://portal.example.net\", cert_file: /etc/usher/portal.crt, key_file: /etc/usher/portal.key}}\n"), portalEnv(t))
	require.ErrorContains(t, err, "portal.https.listen: 198.51.100.1:80 is portal.listen, too")
}
