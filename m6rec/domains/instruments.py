"""Musical instruments and what buyers wrote: Amazon 2014, the 5-core of "Musical Instruments", without metadata."""

from dataclasses import replace

from m6rec.domains import amazon

DOMAIN = replace(
    amazon.DOMAIN, name="instruments", noun="instrument", item=lambda item: "the musical instrument or accessory"
)
