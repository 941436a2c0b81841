package portal

import (
	"net/http"
	"path"
	"strings"
)

// probePaths are those by which systems look for a captive portal, as they ask
// today; true: a name that other sites have too, so not with a query.
var probePaths = map[string]bool{
	"/hotspot-detect.html": false, "/library/test/success.html": false, // Apple
	"/connecttest.txt": false, "/ncsi.txt": false, "/redirect": true, // Windows
	"/success.txt": false, "/canonical.html": false, // Firefox, which asks ?ipv4 and ?ipv6
	"/check_network_status.txt": false, "/nm-check.txt": false, "/nm": true, "/static/hotspot.txt": false, // NetworkManager
	"/kindle-wifi/wifistub.html": false, // Kindle
}

// isProbe recognises the requests with which systems look for a captive portal.
// They are sent to the page's own address: Android and its relatives take a status from 200 to
// 399 for a portal and 511 for a network without internet, where they show
// nothing; the others follow the redirection, too.
func isProbe(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	p := path.Clean("/" + r.URL.Path) // a slash at the end, or one too many, asks for the same
	if isGenerate204(path.Base(p)) {
		return true
	}
	generic, known := probePaths[p]
	return known && (!generic || r.URL.RawQuery == "")
}

// isGenerate204 recognises the page without content of Android, Chrome and their
// relatives, wherever it is. Huawei and Honor put an identifier behind its name.
func isGenerate204(name string) bool {
	return name == "generate_204" || name == "gen_204" || strings.HasPrefix(name, "generate_204_")
}
