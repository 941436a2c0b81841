package portal

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// The requests by which systems find out that they are captive, as they send them
// today, and what a paused customer's device gets.
var probes = map[string]struct {
	method, url string
	code        int
}{
	"Android":                       {"GET", "http://connectivitycheck.gstatic.com/generate_204", 302},
	"Android, second address":       {"GET", "http://www.google.com/gen_204", 302},
	"Android, third address":        {"GET", "http://play.googleapis.com/generate_204", 302},
	"Android, head":                 {"HEAD", "http://connectivitycheck.gstatic.com/generate_204", 302},
	"Chrome":                        {"GET", "http://www.gstatic.com/generate_204", 302},
	"Chrome OS, with a query":       {"GET", "http://www.google.com/gen_204?source=portal", 302},
	"Edge":                          {"GET", "http://edge-http.microsoft.com/captiveportal/generate_204", 302},
	"Xiaomi":                        {"GET", "http://connect.rom.miui.com/generate_204", 302},
	"Oppo":                          {"GET", "http://conn1.oppomobile.com/generate_204", 302},
	"Vivo":                          {"GET", "http://wifi.vivo.com.cn/generate_204", 302},
	"Samsung, China":                {"GET", "http://connectivity.samsung.com.cn/generate_204", 302},
	"Huawei":                        {"GET", "http://connectivitycheck.platform.hicloud.com/generate_204_b6ad40a2-6b1e-4f0e-8f3c-2a5d1c9e7f10", 302},
	"Huawei, with a query":          {"GET", "http://connectivitycheck.platform.hicloud.com/generate_204_b6ad40a2?v=2", 302},
	"Huawei, with nothing behind":   {"GET", "http://connectivitycheck.platform.hicloud.com/generate_204_", 302},
	"Honor":                         {"GET", "http://connectivitycheck.platform.hihonorcloud.com/generate_204_0f1e2d3c", 302},
	"Honor, with a slash":           {"GET", "http://connectivitycheck.platform.hihonorcloud.com/generate_204_0f1e2d3c/", 302},
	"Android, with a query":         {"GET", "http://connectivitycheck.gstatic.com/generate_204?r=1", 302},
	"Android, with a slash":         {"GET", "http://connectivitycheck.gstatic.com/generate_204/", 302},
	"Android, with two slashes":     {"GET", "http://connectivitycheck.gstatic.com//generate_204", 302},
	"Apple":                         {"GET", "http://captive.apple.com/hotspot-detect.html", 302},
	"Apple, older":                  {"GET", "http://www.apple.com/library/test/success.html", 302},
	"Apple, with a query":           {"GET", "http://captive.apple.com/hotspot-detect.html?n=1", 302},
	"Apple, a path of its own":      {"GET", "http://captive.apple.com/x7Fq/p2Lm.html", 511}, // whatever is not "Success" is a portal
	"Windows":                       {"GET", "http://www.msftconnecttest.com/connecttest.txt", 302},
	"Windows, with a query":         {"GET", "http://www.msftconnecttest.com/connecttest.txt?n=1700000000", 302},
	"Windows 7":                     {"GET", "http://www.msftncsi.com/ncsi.txt", 302},
	"Windows, the page that opens":  {"GET", "http://www.msftconnecttest.com/redirect", 302},
	"Firefox":                       {"GET", "http://detectportal.firefox.com/canonical.html", 302},
	"Firefox, by IPv4":              {"GET", "http://detectportal.firefox.com/success.txt?ipv4", 302},
	"Firefox, by IPv6":              {"GET", "http://detectportal.firefox.com/success.txt?ipv6", 302},
	"Firefox, older":                {"GET", "http://detectportal.firefox.com/success.txt", 302},
	"Kindle":                        {"GET", "http://spectrum.s3.amazonaws.com/kindle-wifi/wifistub.html", 302},
	"GNOME":                         {"GET", "http://nmcheck.gnome.org/check_network_status.txt", 302},
	"Arch":                          {"GET", "http://ping.archlinux.org/nm-check.txt", 302},
	"Debian":                        {"GET", "http://network-test.debian.org/nm", 302},
	"Fedora":                        {"GET", "http://fedoraproject.org/static/hotspot.txt", 302},
	"Ubuntu":                        {"GET", "http://connectivity-check.ubuntu.com/", 511}, // NetworkManager knows 511
	"a counter of clicks elsewhere": {"GET", "http://any.example.org/redirect?to=x", 511},
	"a page of that name elsewhere": {"GET", "http://any.example.org/blog/success.txt", 511},
	"a longer name":                 {"GET", "http://any.example.org/generate_2048", 511},
	"an identifier with a path":     {"GET", "http://any.example.org/generate_204_1/page", 511},
	"no request of a device":        {"POST", "http://connectivitycheck.gstatic.com/generate_204", 511},
}

func TestProbes(t *testing.T) {
	for name, tt := range probes {
		t.Run(name, func(t *testing.T) {
			s, _ := newServer(t, testOptions())
			w := ask(s, false, httptest.NewRequest(tt.method, tt.url, nil), "198.51.100.1")
			require.Equal(t, tt.code, w.Code, tt.url)
			if tt.code == 302 {
				require.Equal(t, "http://192.0.2.2:8080/", w.Header().Get("Location"))
			}
			w = ask(s, false, httptest.NewRequest(tt.method, tt.url, nil), "198.51.100.4")
			require.Equal(t, 503, w.Code, "whoever is not blocked is not told of a portal")
		})
	}
}
