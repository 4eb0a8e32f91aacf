package main_test

import (
	"bytes"
	"context"
	"flag"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// browser is a tab of a real one, in which no script runs.
type browser struct {
	t    testing.TB
	ctx  context.Context
	host string // the only one that it may ask for anything

	mu    sync.Mutex
	asked []string // what it has asked for: type and URL
	says  []string // of what is wrong with the page
}

// openBrowser opens a tab for the pages of a host.
func openBrowser(t testing.TB, host string) *browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("the tests of the status page need chromium on the PATH, which `make test` installs on Debian: ", err)
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(program), chromedp.Flag("hide-scrollbars", true)}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium does not start as root otherwise.
	}
	ctx, cancel := chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(options...))
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx, host: host}
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatalf("chromium does not start: %v", err)
	}
	b.call(func() error { _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); return err })
	b.call(func() error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	})
	b.size(1280, 900)
	return b
}

// note is called for each event.
func (b *browser) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, string(e.Type)+" "+e.Request.URL)
	case *cdplog.EventEntryAdded:
		b.says = append(b.says, e.Entry.Text)
	case *page.EventJavascriptDialogOpening:
		b.says = append(b.says, "a dialog opens: "+e.Message)
	}
}

// call does one thing with the browser, which may not take long.
func (b *browser) call(do func() error) {
	b.t.Helper()
	if err := do(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// ask runs an action that returns something.
func ask[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// open shows a page of the host.
func (b *browser) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate("http://" + b.host + path))
}

// text returns the text of all elements that a selector finds, once all of the page is there:
// on a busy machine it comes in parts.
func (b *browser) text(selector string) []string {
	b.t.Helper()
	until(b.t, "loaded", func() bool { return ask(b, chromedp.Evaluate[string](`document.readyState`)) == "complete" })
	return ask(b, chromedp.Evaluate[[]string](`[...document.querySelectorAll(`+"`"+selector+"`"+`)].map(e => e.textContent.trim())`))
}

func (b *browser) size(width, height int64) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height))
}

// scheme sets what the user prefers: "light" or "dark".
func (b *browser) scheme(name string) {
	b.t.Helper()
	b.call(func() error {
		_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	})
}

// well fails the test if the browser has asked for anything but pages, or has
// something to say of them.
func (b *browser) well() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) == 0 {
		b.t.Error("the browser has asked for nothing")
	}
	for _, asked := range b.asked {
		u, err := url.Parse(asked[len("Document "):])
		if asked[:len("Document ")] != "Document " || err != nil || u.Host != b.host || u.Path != "/status" {
			b.t.Errorf("the browser has asked for %s", asked)
		}
	}
	for _, said := range b.says {
		b.t.Errorf("the browser says: %s", said)
	}
}

var screenshots = flag.String("screenshots", "", "directory for pictures of the status page")

// picture writes what is to be seen, if pictures are wanted.
func (b *browser) picture(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	picture, err := png.Decode(bytes.NewReader(ask(b, chromedp.CaptureScreenshot())))
	if err != nil {
		b.t.Fatal(err)
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, paletted(picture)); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), small.Bytes(), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.t.Logf("%s.png: %d KiB", name, small.Len()>>10)
}

// paletted returns a picture with 256 colours: the page has few, and what is between
// them at the edges of letters. Of colours that are alike one is taken, then those
// that there are most of.
func paletted(picture image.Image) *image.Paletted {
	often := map[color.RGBA]int{}
	bounds := picture.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			often[color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(often), func(a, b color.RGBA) int { return often[b] - often[a] })
	var first, others color.Palette
	taken := map[color.RGBA]bool{}
	for _, c := range colours {
		if alike := (color.RGBA{c.R >> 5, c.G >> 5, c.B >> 5, 0}); !taken[alike] {
			taken[alike] = true
			first = append(first, c)
			continue
		}
		others = append(others, c)
	}
	palette := append(first, others...)
	p := image.NewPaletted(bounds, palette[:min(len(palette), 256)])
	draw.Draw(p, bounds, picture, bounds.Min, draw.Src)
	return p
}
