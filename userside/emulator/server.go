package emulator

import "net/http"

type action struct{}

func actionTable() map[string]*action { return nil }

// ServeHTTP answers /api.php.
func (e *Emulator) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "not yet", http.StatusNotImplemented)
}

// AdminHandler gives the handler for a second listener: a page at /admin/ and
// the JSON API behind it. It needs no key and shows none: listen on loopback.
func (e *Emulator) AdminHandler() http.Handler { return http.NotFoundHandler() }
